"""How much of an update survives the rounding of the weights that are handed over."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.pissa import delta_weight, lora_layers

logger = logging.getLogger(__name__)
NUM_MATRICES, NUM_ROWS = 8, 64
"""The sample: evenly spaced matrices that train, and evenly spaced rows of each."""
SMALL = 0.5
"""A visible share below this is warned about, once a stage."""


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
        self._has_warned = False

    def metrics(self, dtype: torch.dtype) -> dict[str, float]:
        """``visible_update_frac`` if ``dtype`` rounds and there is an update."""
        frac = None if dtype == torch.float32 else self.visible_frac(dtype)
        if frac is None:
            return {}
        if frac < SMALL and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "engines see %.1f %% of the update so far: rounding to %s hides the rest. Set rollout.dtype=float32 to "
                "show them all of it",
                100 * frac,
                str(dtype).removeprefix("torch."),
            )
        return {"visible_update_frac": frac}

    @torch.no_grad()
    def visible_frac(self, dtype: torch.dtype) -> float | None:
        """Share of the update since the start that is left once start and weights are rounded to ``dtype``:
        <rounded update, update> / <update, update>. None without an update."""
        visible = total = 0.0
        for start, update in (*self._of_adapters(), *self._of_weights()):
            rounded = (start + update).to(dtype).float() - start.to(dtype).float()
            visible += (rounded * update).sum(dtype=torch.float64).item()
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


def _spread(items: list[Any]) -> list[Any]:
    return items[:: -(-len(items) // NUM_MATRICES)] if items else []


def _stride(matrix: Tensor) -> slice:
    return slice(None, None, -(-len(matrix) // NUM_ROWS))


def _rows(matrix: Tensor) -> Tensor:
    """[at most NUM_ROWS, ...]"""
    return matrix.detach()[_stride(matrix)]
