"""Rounding of the weights that are handed over, and how much of an update survives it.

A merged adapter changes most weights by less than half a bfloat16 unit in the last place: rounded to the nearest, the
update would be lost. Rounded up or down at random, it arrives on average (docs/decisions.md has the measurement).
Without adapters weights are rounded to the nearest, as the learner's own forward passes round them.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.pissa import delta_weight, lora_layers
from pipeline.seeds import derive_seed

NUM_MATRICES, NUM_ROWS = 8, 64
"""The sample: evenly spaced matrices that train, and evenly spaced rows of each."""


def rounding_seed(run_seed: int, step: int) -> int:
    """The same for the engines and for the final model of a step."""
    return derive_seed(run_seed, "rounding", step)


def round_stochastically(tensor: Tensor, seed: int) -> Tensor:
    """A float32 tensor in bfloat16: each value becomes one of its two neighbours, and is right on average. Values that
    bfloat16 has stay as they are."""
    generator = torch.Generator(tensor.device).manual_seed(seed)
    words = torch.empty(-(-tensor.numel() // 4), dtype=torch.int64, device=tensor.device)
    words.random_(-(2**63), None, generator=generator)
    noise = words.view(torch.int16)[: tensor.numel()].view(tensor.shape).to(torch.int32) + 2**15  # 0 to 2^16 - 1
    bits = tensor.contiguous().view(torch.int32)
    return noise.add_(bits).bitwise_and_(-(2**16)).view(torch.float32).to(torch.bfloat16)


class UpdateSample:
    """A sample of the weights of a model, of which the start is known.

    Args:
        model: as loaded, before it is trained or restored.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = _spread(list(lora_layers(model).values()))
        matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        self._matrices = [] if self._layers else _spread(matrices)
        self._starts = [_rows(matrix).float().clone() for matrix in self._matrices]

    def metrics(self, dtype: torch.dtype, seed: int) -> dict[str, float]:
        """``visible_update_frac`` if ``dtype`` rounds and there is an update."""
        frac = None if dtype == torch.float32 else self.visible_frac(dtype, seed)
        return {} if frac is None else {"visible_update_frac": frac}

    def record(self, dtype: torch.dtype, seed: int) -> dict[str, str | float | None]:
        """Precision, kind of rounding and visible share of the weights handed over with this seed."""
        rounding = "none" if dtype == torch.float32 else "stochastic" if self._layers else "nearest"
        name = str(dtype).removeprefix("torch.")
        return {"dtype": name, "rounding": rounding, "visible_update_frac": self.visible_frac(dtype, seed)}

    @torch.no_grad()
    def visible_frac(self, dtype: torch.dtype, seed: int | None) -> float | None:
        """Share of the update since the start that is left once start and weights are rounded to ``dtype``:
        <rounded update, update> / <update, update>. None without an update.

        Args:
            seed: as in ``merged_weights``.
        """
        visible = total = 0.0
        for index, (start, update) in enumerate((*self._of_adapters(), *self._of_weights())):
            weights, is_merged = start + update, bool(self._layers)
            rounded = rounded_to(weights, dtype, seed if is_merged else None, index)
            visible += ((rounded.float() - start.to(dtype).float()) * update).sum(dtype=torch.float64).item()
            total += update.square().sum(dtype=torch.float64).item()
        return visible / total if total else None

    def _of_adapters(self) -> list[tuple[Tensor, Tensor]]:
        bases = [layer.get_base_layer().weight for layer in self._layers]
        return [
            (_rows(base).float(), delta_weight(layer, _stride(base)))
            for base, layer in zip(bases, self._layers, strict=True)
        ]

    def _of_weights(self) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(self._starts, self._matrices, strict=True)
        return [(start, _rows(matrix).float() - start) for start, matrix in pairs]


def rounded_to(tensor: Tensor, dtype: torch.dtype, seed: int | None, *parts: object) -> Tensor:
    """A float32 tensor in ``dtype``: with a seed at random, otherwise to the nearest.

    Args:
        parts: of the seed; they tell tensors apart.
    """
    if seed is None or dtype != torch.bfloat16:
        return tensor.to(dtype)
    return round_stochastically(tensor, derive_seed(seed, *parts))


def _spread(items: list[Any]) -> list[Any]:
    return items[:: -(-len(items) // NUM_MATRICES)] if items else []


def _stride(matrix: Tensor) -> slice:
    return slice(None, None, -(-len(matrix) // NUM_ROWS))


def _rows(matrix: Tensor) -> Tensor:
    """[at most NUM_ROWS, ...]"""
    return matrix.detach()[_stride(matrix)]
