"""Prompts as a frozen backbone sees them before it reads the memory, computed once and reused.

A memory that is read from the prompt's last token on leaves the keys and values of all tokens before it alone. They
are the same in every step, with every bank and every choice of entries.

Shapes: B prompts; P tokens of the longest one without its last; hidden size d; A inputs from the last token on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.models.attention import LENGTH_MULTIPLE
from pipeline.models.memory.attach import memory_of


@dataclass(frozen=True)
class PromptStates:
    """Prompts without their last token, padded on the right."""

    cache: Tensor
    """[layers, 2, B, heads, P, D]: keys and values of every layer; of no layer if they are not needed."""
    hidden: Tensor
    """[B, P, d]: after ``query_layer`` decoder layers."""
    mask: Tensor
    """[B, P] bool"""

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(dim=1)

    def __getitem__(self, rows: slice) -> "PromptStates":
        """Some of the prompts, without padding that none of them needs."""
        mask = self.mask[rows]
        longest = int(mask.sum(dim=1).max())
        return PromptStates(self.cache[:, :, rows, :, :longest], self.hidden[rows, :longest], mask[:, :longest])

    def clone(self) -> "PromptStates":
        """A copy that does not keep a larger batch in memory."""
        return PromptStates(self.cache.clone(), self.hidden.clone(), self.mask.clone())

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.cache, self.hidden, self.mask))


def rounded_up(length: int, multiple: int = LENGTH_MULTIPLE) -> int:
    return -(-length // multiple) * multiple


def join(states: Sequence[PromptStates]) -> PromptStates:
    """One batch of several."""
    longest = rounded_up(max(state.mask.shape[1] for state in states))

    def joined(tensors: Sequence[Tensor], batch_dim: int, padded_dim: int) -> Tensor:
        shape = list(tensors[0].shape)
        shape[batch_dim], shape[padded_dim] = sum(t.shape[batch_dim] for t in tensors), longest
        whole = tensors[0].new_zeros(shape)
        start = 0
        for tensor in tensors:
            part = whole.narrow(batch_dim, start, tensor.shape[batch_dim])
            part.narrow(padded_dim, 0, tensor.shape[padded_dim]).copy_(tensor)
            start += tensor.shape[batch_dim]
        return whole

    return PromptStates(
        joined([state.cache for state in states], 2, 4),
        joined([state.hidden for state in states], 0, 1),
        joined([state.mask for state in states], 0, 1),
    )


@torch.no_grad()
def read_prompts(model: Any, prompts: Sequence[Sequence[int]], *, with_kv: bool = True) -> PromptStates:
    """The states of prompts of two tokens at least, without memory.

    Args:
        with_kv: False: hidden states alone, from the first layers; of keys and values none are kept.
    """
    memory = memory_of(model)
    assert memory is not None
    decoder, query_layer = model.get_decoder(), memory.config.query_layer
    bodies = [prompt[:-1] for prompt in prompts]
    input_ids, mask = padded_right(bodies, memory.embedding.device, rounded_up(max(map(len, bodies))))
    with (
        memory.reading(None),
        _hidden_after(decoder, query_layer) as found,
        decoder_of_layers(decoder, None if with_kv else query_layer),
    ):
        output = decoder(input_ids=input_ids, attention_mask=mask.long(), use_cache=with_kv)
    cache = stacked_cache(output) if with_kv else found[0].new_zeros(0, 2, len(mask), 1, mask.shape[1], 1)
    return PromptStates(cache, found[0], mask)


def stacked_cache(output: Any) -> Tensor:
    """Keys and values of a decoder's output, as ``PromptStates`` holds them."""
    return torch.stack([torch.stack([layer.keys, layer.values]) for layer in output.past_key_values.layers])


def padded_right(
    sequences: Sequence[Sequence[int]], device: torch.device, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] of sequences that may be shorter, and where they are, [B, T] bool. T is the longest's length, or
    ``width``."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    mask = torch.arange(width or int(lengths.max()), device=device) < lengths[:, None]
    input_ids = torch.zeros(mask.shape, dtype=torch.long, device=device)
    input_ids[mask] = torch.tensor([token for sequence in sequences for token in sequence], device=device)
    return input_ids, mask


def answer_output(model: Any, states: PromptStates, input_ids: Tensor) -> Any:
    """The backbone's output for inputs [B, A] from each prompt's last token on. Its cache holds prompt and inputs."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(states.cache):
        cache.update(keys, values, layer)
    return _continued(model, cache, states.mask, states.lengths, input_ids)


def continued_output(model: Any, cache: Any, states: PromptStates, num_before: int, input_ids: Tensor) -> Any:
    """As ``answer_output``, of the inputs [B, A] after the first ``num_before``, whose keys are in the cache."""
    mask = nn.functional.pad(states.mask, (0, num_before), value=True)
    return _continued(model, cache, mask, states.lengths + num_before, input_ids)


def _continued(model: Any, cache: Any, mask: Tensor, starts: Tensor, input_ids: Tensor) -> Any:
    width = input_ids.shape[1]
    whole = nn.functional.pad(mask, (0, width), value=True)
    positions = starts[:, None] + torch.arange(width, device=starts.device)
    return model(
        input_ids=input_ids,
        attention_mask=whole.long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )


@contextmanager
def _hidden_after(decoder: Any, num_layers: int) -> Iterator[list[Tensor]]:
    """The hidden states after so many layers of the block's forward pass."""
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        found.append(cast(Tensor, output[0] if isinstance(output, tuple) else output))

    place = decoder.layers[num_layers - 1] if num_layers else decoder.embed_tokens
    hook = place.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def decoder_of_layers(decoder: Any, num_layers: int | None) -> Iterator[None]:
    """Within the block the decoder has its first layers alone. None: all."""
    layers = decoder.layers
    if num_layers is not None:
        decoder.layers = layers[:num_layers]
    try:
        yield
    finally:
        decoder.layers = layers
