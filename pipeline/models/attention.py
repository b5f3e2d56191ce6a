"""Attention over packed rows: several sequences one after the other, none of which sees another.

transformers keeps packed sequences apart by itself when their positions restart: flash attention in a kernel of its
own, the others by a mask [L, L], which makes them compute what it then hides. ``packed_sdpa`` calls the causal kernel
on each sequence instead, and needs no mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

PACKED_SDPA = "packed_sdpa"


def enable_packing(model: nn.Module) -> None:
    """Let a model that uses sdpa take packed rows at full speed. Models with attention that is not all causal (sliding
    windows) stay as they are, and mask."""
    from transformers import AttentionInterface, AttentionMaskInterface

    config: Any = model.config
    all_causal = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    if config._attn_implementation != "sdpa" or not all_causal or getattr(config, "sliding_window", None):
        return
    AttentionInterface.register(PACKED_SDPA, _packed_sdpa)
    AttentionMaskInterface.register(PACKED_SDPA, _no_mask)
    model.set_attn_implementation(PACKED_SDPA)  # type: ignore[operator]


def packing_arguments(model: nn.Module, lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What the model's forward pass must be told of a packed row, besides its tokens.

    Args:
        lengths: of its sequences, in order; together the whole row.
    """
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    arguments: dict[str, Any] = {"position_ids": positions[None]}
    if model.config._attn_implementation == PACKED_SDPA:  # type: ignore[union-attr]
        arguments["packed_lengths"] = tuple(lengths)
    return arguments


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_lengths: tuple[int, ...] | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """transformers' sdpa, on every sequence of a row by itself.

    Args:
        query: [B, num_heads, L, D]; key, value: [B, num_kv_heads, L, D].

    Returns:
        [B, L, num_heads, D].
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packed_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)
    parts = zip(*(tensor.split(packed_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [sdpa_attention_forward(module, *part, attention_mask=None, **arguments)[0] for part in parts]
    return torch.cat(outputs, dim=1), None
