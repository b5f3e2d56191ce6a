"""Attention for training: exact, causal, without a mask in the model's arguments.

Packed rows hold several sequences one after the other, none of which sees another. transformers keeps them apart when
their positions restart: flash attention with a kernel of its own, other implementations with an [L, L] mask, so that
they compute scores only to discard them. ``causal_sdpa`` attends within each sequence and needs no mask.

On a CPU, short sequences (packed or padded) use plain matrix products: PyTorch's fused kernel is two to three times
slower for them (docs/results.md).
"""

import logging
from collections.abc import Sequence
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
    """True if a packed sequence gives the same logits whatever comes before it."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    after_0, after_1 = (
        model(
            input_ids=torch.tensor([[first, first, 0, 1]], device=device),
            use_cache=False,
            **packing_arguments(model, (2, 2), device),
        ).logits[0, 2:]
        for first in (0, 1)
    )
    model.train(training)
    return torch.equal(after_0, after_1)


def packing_arguments(model: nn.Module, lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Arguments of the model's forward pass for a packed row, besides its tokens.

    Args:
        lengths: tokens of each sequence, in order; together the whole row.
    """
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    arguments: dict[str, Any] = {"position_ids": positions[None]}
    if model.config._attn_implementation == CAUSAL_SDPA:  # type: ignore[union-attr]
        arguments["packed_lengths"] = tuple(lengths)
    return arguments


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _causal_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_lengths: tuple[int, ...] | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a packed row; without ``packed_lengths``, within whole rows.

    Args:
        query: [B, num_heads, L, D]; key, value: [B, num_kv_heads, L, D].

    Returns:
        [B, L, num_heads, D].
    """
    if packed_lengths is None:
        return _attend(module, query, key, value, **arguments), None
    parts = zip(*(tensor.split(packed_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    return torch.cat([_attend(module, *part, **arguments) for part in parts], dim=1), None


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    """One sequence per row; shapes as in ``_causal_sdpa``."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if query.device.type != "cpu" or query.shape[2] > SHORT or arguments.get("dropout"):
        output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask=None, **arguments)[0]
        return output
    return plain_causal_attention(query, key, value, arguments.get("scaling") or query.shape[-1] ** -0.5)


def plain_causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """softmax(scaling Q K^T) V in the dtype of V; each query sees its own position and earlier ones.

    Query heads that share a key head are rows of one product. In bfloat16 the mean key is subtracted first: it changes
    no softmax, but would cost the scores precision.

    Args:
        query: [B, num_heads, L, D]; key: [B, num_kv_heads, L, D]; value: [B, num_kv_heads, L, D_v].

    Returns:
        [B, L, num_heads, D_v].
    """
    batch, num_heads, num_tokens, _ = query.shape
    num_kv_heads, dtype = value.shape[1], value.dtype
    length, query = num_tokens, (query * scaling).to(dtype)
    if dtype == torch.bfloat16:
        key = (key - key.detach().mean(dim=2, keepdim=True)).to(dtype)
        length += -num_tokens % LENGTH_MULTIPLE  # padding at the end, which no token sees
        query, key, value = (F.pad(tensor, (0, 0, 0, length - num_tokens)) for tensor in (query, key, value))
    grouped = (batch, num_kv_heads, num_heads // num_kv_heads * length, -1)
    later = torch.full((length, length), -torch.inf, dtype=dtype, device=query.device).triu(1)
    with torch.autocast(query.device.type, enabled=False):  # autocast would run the softmax in float32
        scores = (query.reshape(grouped) @ key.transpose(2, 3)).view(batch, num_heads, length, length)
        weights = scores.add_(later).softmax(dim=-1)
        outputs = weights.view(grouped) @ value
    return outputs.view(batch, num_heads, length, -1)[:, :, :num_tokens].transpose(1, 2).contiguous()
