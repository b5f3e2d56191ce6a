"""PiSSA, arXiv:2404.02948, on an untouched base.

PiSSA starts A and B from the principal singular vectors and subtracts their product from the base. In bfloat16 that
difference is rounded, so that training would not start from the model (relative error 2e-3). Here the base stays as it
is and a frozen copy of the start is subtracted in the adapter: W x + s (B A - B_0 A_0) x. The gradients are the same.
"""

import hashlib
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers of a model, by name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def restore_bases(model: nn.Module, bases: dict[str, Tensor]) -> None:
    """Undo peft's subtraction, and let the adapters subtract their start instead.

    Args:
        bases: the weights of all linear layers before peft changed them, by layer.
    """
    for name, layer in lora_layers(model).items():
        layer.get_base_layer().weight.data = bases[name]
        layer.register_buffer("start_a", layer.lora_A["default"].weight.detach().clone(), persistent=False)
        layer.register_buffer("start_b", layer.lora_B["default"].weight.detach().clone(), persistent=False)
        layer.lora_variant["default"] = _LessItsStart


def start_digest(model: nn.Module) -> str:
    """16 hex digits over the frozen starts; empty without PiSSA. They are computed again on every load."""
    starts = [start for layer in lora_layers(model).values() if hasattr(layer, "start_a") for start in _start(layer)]
    digest = hashlib.sha256()
    for start in starts:
        digest.update(start.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16] if starts else ""


def _start(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.start_a, layer.start_b


def adds_nothing(layer: Any) -> bool:
    """True for an adapter as it starts, unless that is PiSSA's."""
    adapter = layer.active_adapters[0]
    if adapter not in layer.lora_B or hasattr(layer, "start_a"):
        return False
    return not layer.lora_B[adapter].weight.any()


def delta_weight(layer: Any, rows: slice = slice(None)) -> Tensor:
    """The update that a LoRA layer adds to these rows of its base, in float32. Exactly 0 at PiSSA's start."""
    adapter = layer.active_adapters[0]
    if not isinstance(layer.get_base_layer(), nn.Linear):  # of an adapter that was trained elsewhere
        return cast(Tensor, layer.get_delta_weight(adapter).float()[rows])
    scaling = layer.scaling[adapter]
    delta: Tensor = scaling * layer.lora_B[adapter].weight[rows].float() @ layer.lora_A[adapter].weight.float()
    if hasattr(layer, "start_a"):
        delta.sub_(scaling * layer.start_b[rows].float() @ layer.start_a.float())
    return delta


class _LessItsStart:
    """A LoRA layer whose adapter is B A - B_0 A_0. peft calls it for forward passes and merges."""

    @staticmethod
    def forward(layer: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        a = torch.cat([layer.lora_A[active_adapter].weight, layer.start_a])
        b = torch.cat([layer.lora_B[active_adapter].weight, -layer.start_b], dim=1)
        added = F.linear(F.linear(layer.lora_dropout[active_adapter](x), a), b)
        scaling: float = layer.scaling[active_adapter]
        return result + added * scaling

    @staticmethod
    def merge_safe(layer: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        return orig_weight + delta_weight(layer).to(orig_weight.dtype)

    @staticmethod
    def merge_unsafe(layer: Any, active_adapter: str, orig_weight: Tensor) -> None:
        orig_weight.data += delta_weight(layer).to(orig_weight.dtype)
