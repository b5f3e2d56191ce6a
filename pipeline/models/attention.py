"""Attention for training: exact, causal, without a mask in the model's arguments.

Packed rows hold several sequences one after the other, none of which sees another. transformers keeps them apart by
itself when their positions restart: flash attention in a kernel of its own, the others by a mask [L, L], which makes
them compute what it then hides. ``causal_sdpa`` attends within each sequence instead, and needs no mask.

On a CPU short sequences, packed or padded, take plain matrix products: PyTorch's kernel for long ones is two to three
times slower there (docs/results.md).
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
"""Tokens of the longest sequence that takes plain products. They hold scores [num_heads, L, L] of every layer."""
LENGTH_MULTIPLE = 32
"""Plain products pad to it: PyTorch compiles every new shape of a bfloat16 product, which takes time and memory."""


def use_causal_sdpa(model: nn.Module) -> None:
    """Let a model that uses sdpa learn at full speed, packed rows included. Models of several parts, with attention
    that is not all causal (sliding windows), or whose layers do not hand arguments on, stay as they are, and mask."""
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
        logger.warning("%s cannot pack by itself: packed rows are masked, which is slower", type(model).__name__)
        model.set_attn_implementation("sdpa")  # type: ignore[operator]


@torch.no_grad()
def _keeps_packed_apart(model: nn.Module) -> bool:
    """Whether a packed sequence is the same after another first one."""
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
    """What the model's forward pass must be told of a packed row, besides its tokens.

    Args:
        lengths: of its sequences, in order; together the whole row.
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
    """Causal attention within every sequence of a row, or within whole rows.

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
    """Shapes as above, one sequence per row."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if query.device.type != "cpu" or query.shape[2] > SHORT or arguments.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, attention_mask=None, **arguments)[0]
    return plain_causal_attention(query, key, value, arguments.get("scaling") or query.shape[-1] ** -0.5)


def plain_causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """softmax(scaling Q K^T) V in the dtype of V, each query seeing its own position and earlier ones. Query heads that
    share a key head are the rows of one product. What all keys have in common changes no softmax, but would cost
    bfloat16 scores their digits: there it is taken off.

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
        length += -num_tokens % LENGTH_MULTIPLE  # at the end, where no token looks
        query, key, value = (F.pad(tensor, (0, 0, 0, length - num_tokens)) for tensor in (query, key, value))
    grouped = (batch, num_kv_heads, num_heads // num_kv_heads * length, -1)
    later = torch.full((length, length), -torch.inf, dtype=dtype, device=query.device).triu(1)
    with torch.autocast(query.device.type, enabled=False):  # it would take the softmax to float32 and back
        scores = (query.reshape(grouped) @ key.transpose(2, 3)).view(batch, num_heads, length, length)
        weights = scores.add_(later).softmax(dim=-1)
        outputs = weights.view(grouped) @ value
    return outputs.view(batch, num_heads, length, -1)[:, :, :num_tokens].transpose(1, 2).contiguous()
