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

from pipeline.models.memory.attach import memory_of


@dataclass(frozen=True)
class PromptStates:
    """Prompts without their last token, padded on the right."""

    keys: tuple[Tensor, ...]
    """Of each layer: [B, heads, P, D]."""
    values: tuple[Tensor, ...]
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
        keys, values = (tuple(t[rows, :, :longest] for t in part) for part in (self.keys, self.values))
        return PromptStates(keys, values, self.hidden[rows, :longest], mask[:, :longest])

    def clone(self) -> "PromptStates":
        """A copy that does not keep a larger batch in memory."""
        keys, values = (tuple(t.clone() for t in part) for part in (self.keys, self.values))
        return PromptStates(keys, values, self.hidden.clone(), self.mask.clone())

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values, self.hidden, self.mask))


def join(states: Sequence[PromptStates]) -> PromptStates:
    """One batch of several."""
    longest = max(state.mask.shape[1] for state in states)

    def padded(tensors: Sequence[Tensor], dim: int) -> Tensor:
        shapes = [[0, 0] * (t.ndim - 1 - dim) + [0, longest - t.shape[dim]] for t in tensors]
        return torch.cat([nn.functional.pad(t, shape) for t, shape in zip(tensors, shapes, strict=True)])

    keys, values = (
        tuple(padded(layer, 2) for layer in zip(*parts, strict=True))
        for parts in ([state.keys for state in states], [state.values for state in states])
    )
    hidden, mask = padded([state.hidden for state in states], 1), padded([state.mask for state in states], 1)
    return PromptStates(keys, values, hidden, mask)


@torch.no_grad()
def read_prompts(model: Any, prompts: Sequence[Sequence[int]], *, keys: bool = True) -> PromptStates:
    """The states of prompts of two tokens at least, without memory.

    Args:
        keys: False: hidden states alone, from the first layers; of keys and values none are kept.
    """
    memory = memory_of(model)
    assert memory is not None
    decoder, query_layer = model.get_decoder(), memory.config.query_layer
    input_ids, mask = padded_right([prompt[:-1] for prompt in prompts], memory.embedding.device)
    with memory.reading(None), _hidden_after(decoder, query_layer) as found:
        with decoder_of_layers(decoder, None if keys else query_layer):
            output = decoder(input_ids=input_ids, attention_mask=mask.long(), use_cache=keys)
    layers = output.past_key_values.layers if keys else []
    return PromptStates(tuple(l.keys for l in layers), tuple(l.values for l in layers), found[0], mask)


def padded_right(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] of sequences that may be shorter, and where they are, [B, T] bool."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
    input_ids = torch.zeros(mask.shape, dtype=torch.long, device=device)
    input_ids[mask] = torch.tensor([token for sequence in sequences for token in sequence], device=device)
    return input_ids, mask


def answer_output(model: Any, states: PromptStates, input_ids: Tensor) -> Any:
    """The backbone's output for inputs [B, A] from each prompt's last token on. Its cache holds prompt and inputs."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(zip(states.keys, states.values, strict=True)):
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
