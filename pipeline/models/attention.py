"""Attention for training: exact, causal, without a mask in the model's arguments.

Packed rows hold several sequences one after the other, none of which sees another. transformers keeps them apart when
their positions restart: flash attention with a kernel of its own, other implementations with an [L, L] mask, so that
they compute scores only to discard them. ``causal_sdpa`` attends within each sequence and needs no mask. It alone can
attend from several completions to one prompt that they share.

On a CPU, short sequences (packed or padded) use plain matrix products: PyTorch's fused kernel is two to three times
slower for them (docs/results.md).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

logger = logging.getLogger(__name__)

CAUSAL_SDPA = "causal_sdpa"
SHORT = 512
"""Longest sequence, in tokens, that uses plain products. They keep scores [num_heads, L, L] for every layer."""
LENGTH_MULTIPLE = 32
"""Plain products pad lengths to a multiple of this: PyTorch compiles every new bfloat16 shape, at a cost in time and
memory."""


@dataclass(frozen=True)
class PackedGroup:
    """Tokens of a packed row that belong together: a prompt, then completions which see it and themselves."""

    prompt: int
    """Or a whole sequence that shares nothing."""
    completions: tuple[int, ...] = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.prompt, *self.completions)


def use_causal_sdpa(model: nn.Module) -> None:
    """Switch a model from sdpa to ``causal_sdpa``.

    Some models keep sdpa and its masks: those with several parts, with attention that is not fully causal (sliding
    windows), or with layers that do not pass extra arguments on.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    config: Any = model.config
    all_causal = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    if config._attn_implementation != "sdpa" or not all_causal or getattr(config, "sliding_window", None):
        return
    if config.get_text_config() is not config:
        return
    AttentionInterface.register(CAUSAL_SDPA, _causal_sdpa)
    AttentionMaskInterface.register(CAUSAL_SDPA, _no_mask)
    model.set_attn_implementation(CAUSAL_SDPA)  # type: ignore[operator]
    if not _keeps_packed_apart(model):
        logger.warning("%s needs a mask for packed rows, which is slower", type(model).__name__)
        model.set_attn_implementation("sdpa")  # type: ignore[operator]


@torch.no_grad()
def _keeps_packed_apart(model: nn.Module) -> bool:
    """True if what a completion gives depends on its own position, and not on the completion before it."""
    training, device = model.training, next(model.parameters()).device
    model.eval()

    def last_logits(other: int, position: int) -> Tensor:
        arguments = packing_arguments(model, [PackedGroup(2, (2, 2))], device)
        arguments["position_ids"][0, -1] = position
        row = torch.tensor([[0, 1, other, other, 0, 1]], device=device)
        logits: Tensor = model(input_ids=row, use_cache=False, **arguments).logits[0, 4:]
        return logits

    after_0, after_1, moved = last_logits(0, 3), last_logits(1, 3), last_logits(0, 9)
    model.train(training)
    return torch.equal(after_0, after_1) and not torch.equal(after_0, moved)


def can_share_prompts(model: nn.Module) -> bool:
    """True if completions in a packed row can see one prompt that they share."""
    return bool(model.config._attn_implementation == CAUSAL_SDPA)  # type: ignore[union-attr]


def packing_arguments(model: nn.Module, groups: Sequence[PackedGroup], device: torch.device) -> dict[str, Any]:
    """Arguments of the model's forward pass for a packed row, besides its tokens.

    Args:
        groups: the whole row, in order.
    """
    ends = [
        (0 if index == 0 else group.prompt, length) for group in groups for index, length in enumerate(group.lengths)
    ]
    positions = torch.cat([torch.arange(start, start + length) for start, length in ends])
    arguments: dict[str, Any] = {"position_ids": positions[None].to(device)}
    if can_share_prompts(model):
        arguments["packed_groups"] = tuple(groups)
    return arguments


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _causal_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_groups: tuple[PackedGroup, ...] | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each group of a packed row; without ``packed_groups``, within whole rows.

    Args:
        query: [B, num_heads, L, D]; key, value: [B, num_kv_heads, L, D].

    Returns:
        [B, L, num_heads, D].
    """
    if packed_groups is None:
        return _attend(module, query, key, value, **arguments), None
    lengths = [length for group in packed_groups for length in group.lengths]
    parts = list(zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True))
    outputs = []
    for group in packed_groups:
        (prompt, *completions), parts = parts[: len(group.lengths)], parts[len(group.lengths) :]
        outputs += [_attend(module, *prompt, **arguments), *_attend_to_prompt(module, prompt, completions, **arguments)]
    return torch.cat(outputs, dim=1), None


Part = tuple[Tensor, Tensor, Tensor]
"""Query, key and value of a part of a packed row."""


def _attend_to_prompt(module: nn.Module, prompt: Part, completions: Sequence[Part], **arguments: Any) -> list[Tensor]:
    """[1, L, num_heads, D] of each completion. Those of about the same length are computed together, padded."""
    outputs: dict[int, Tensor] = {}
    lengths = [part[0].shape[2] for part in completions]
    padded = [length + _padding(length) for length in lengths]
    for width in sorted(set(padded) - {0}):
        chosen = [index for index, length in enumerate(padded) if length == width]
        query, key, value = (
            torch.cat([F.pad(completions[index][i], (0, 0, 0, width - lengths[index])) for index in chosen])
            for i in range(3)
        )
        keys, values = (
            torch.cat([shared.expand(len(chosen), -1, -1, -1), own], dim=2)
            for shared, own in ((prompt[1], key), (prompt[2], value))
        )
        outputs |= zip(chosen, _attend(module, query, keys, values, **arguments).split(1), strict=True)
    return [outputs[index][:, :length] for index, length in enumerate(lengths) if length]


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    """One sequence per row; shapes as in ``_causal_sdpa``, but queries may be the last positions only."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    num_queries, num_keys = query.shape[2], key.shape[2]
    if query.device.type == "cpu" and num_keys <= SHORT and not arguments.get("dropout"):
        return plain_causal_attention(query, key, value, arguments.get("scaling") or query.shape[-1] ** -0.5)
    mask = None  # it starts at the first position, and the mask of fewer queries must end at the last
    if num_queries < num_keys:
        mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril(num_keys - num_queries)
        mask = mask[None, None]
    output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask=mask, **arguments)[0]
    return output


def plain_causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """softmax(scaling Q K^T) V in the dtype of V; each query sees its own position and earlier ones. With fewer queries
    than keys, they are those of the last positions.

    Query heads that share a key head are rows of one product. In bfloat16 the mean key is subtracted first: it changes
    no softmax, but would cost the scores precision.

    Args:
        query: [B, num_heads, L, D]; key: [B, num_kv_heads, K, D]; value: [B, num_kv_heads, K, D_v].

    Returns:
        [B, L, num_heads, D_v].
    """
    batch, num_heads, num_tokens, _ = query.shape
    num_kv_heads, num_keys, dtype = value.shape[1], value.shape[2], value.dtype
    first, query = num_keys - num_tokens, (query * scaling).to(dtype)
    if dtype == torch.bfloat16:  # padding at the end, which no token sees
        key = (key - key.detach().mean(dim=2, keepdim=True)).to(dtype)
        query, key, value = (F.pad(tensor, (0, 0, 0, _padding(tensor.shape[2]))) for tensor in (query, key, value))
    length, num_keys = query.shape[2], key.shape[2]
    grouped = (batch, num_kv_heads, num_heads // num_kv_heads * length, -1)
    later = torch.full((length, num_keys), -torch.inf, dtype=dtype, device=query.device).triu(first + 1)
    with torch.autocast(query.device.type, enabled=False):  # autocast would run the softmax in float32
        scores = (query.reshape(grouped) @ key.transpose(2, 3)).view(batch, num_heads, length, num_keys)
        weights = scores.add_(later).softmax(dim=-1)
        outputs = weights.view(grouped) @ value
    return outputs.view(batch, num_heads, length, -1)[:, :, :num_tokens].transpose(1, 2).contiguous()


def _padding(length: int) -> int:
    return -length % LENGTH_MULTIPLE
