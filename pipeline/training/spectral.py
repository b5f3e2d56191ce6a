"""Spectral refactoring of a model's LoRA adapters: the same products B A from other factors.

The maths of one pair is in lora_factors.py, settings and measurements in docs/spectral.md.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pipeline.config import TrainerConfig
from pipeline.errors import ModelError
from pipeline.training.lora_factors import effective_rank, refactor_pair, shared_second_moments

logger = logging.getLogger(__name__)


def due_steps(settings: TrainerConfig, total_steps: int) -> range:
    """Optimizer steps (from 1) after which adapters are refactored."""
    every = settings.refactor_every
    first = every * max(1, math.ceil(settings.warmup_steps / every))
    return range(first, total_steps - settings.cooldown_steps + 1, every)


def balance_at(settings: TrainerConfig, step: int, total_steps: int) -> float:
    """Lambda of ``balanced`` after ``step`` steps: linear from ``lambda_start`` to 1. 0 in mode ``exact``."""
    if settings.mode == "exact":
        return 0.0
    return settings.lambda_start + (1 - settings.lambda_start) * min(step / total_steps, 1.0)


@dataclass(frozen=True)
class AdapterPair:
    """The LoRA parameters of one layer."""

    layer: str
    """Its name in the plain model: ``model.layers.0.self_attn.q_proj``."""
    b: Tensor
    a: Tensor


def find_pairs(tensors: Mapping[str, Tensor], adapter: str = "default") -> list[AdapterPair]:
    """The LoRA pairs of linear layers among tensors with peft's names, in the order of ``tensors``."""
    pairs, ending = [], f".lora_A.{adapter}.weight"
    for name, a in tensors.items():
        b = tensors.get(name.replace(".lora_A.", ".lora_B.")) if name.endswith(ending) else None
        if b is not None and a.dim() == b.dim() == 2:
            pairs.append(AdapterPair(name.removesuffix(ending).removeprefix("base_model.model."), b, a))
    return pairs


def select_pairs(pairs: Sequence[AdapterPair], settings: TrainerConfig) -> list[AdapterPair]:
    """The pairs that ``layers`` names and whose layer has the right size. Raises ModelError if none is left."""
    largest = math.inf if settings.max_layer_params is None else settings.max_layer_params
    chosen = [
        pair
        for pair in pairs
        if any(fnmatchcase(f".{pair.layer}", f"*.{pattern}") for pattern in settings.layers)
        and settings.min_layer_params <= pair.b.shape[0] * pair.a.shape[1] <= largest
    ]
    if not chosen:
        names = sorted({pair.layer.rsplit(".", 1)[-1] for pair in pairs}) or "no LoRA adapters: set model.lora"
        raise ModelError(
            f"spectral refactoring must have an adapter to work on, got layers={settings.layers} of "
            f"{settings.min_layer_params} to {largest} weights: the model has {names}."
        )
    return chosen


@dataclass(frozen=True)
class PairReport:
    """One refactored pair, in plain numbers."""

    layer: str
    spectrum_before: list[float]
    """Singular values of B A, without the layer's scaling."""
    spectrum_after: list[float]
    norm_b_before: float
    """Frobenius norms of the factors."""
    norm_a_before: float
    norm_b_after: float
    norm_a_after: float


@dataclass(frozen=True)
class SpectralReport:
    """One refactoring of a model."""

    balance: float
    """Lambda; 0 in mode ``exact``."""
    pairs: list[PairReport]
    skipped: list[str]
    """Layers left as they were: A is rank-deficient, or a factor is not finite."""

    def metrics(self) -> dict[str, float]:
        """Counts, and means over the pairs, for a row of metrics.jsonl."""
        row: dict[str, float] = {
            "spectral_num_pairs": len(self.pairs),
            "spectral_num_skipped": len(self.skipped),
            "spectral_lambda": self.balance,
        }
        for when in ("before", "after") if self.pairs else ():
            spectra = [getattr(pair, f"spectrum_{when}") for pair in self.pairs]
            row[f"spectral_max_{when}"] = fmean(max(spectrum) for spectrum in spectra)
            row[f"spectral_min_{when}"] = fmean(min(spectrum) for spectrum in spectra)
            row[f"spectral_effective_rank_{when}"] = fmean(map(effective_rank, spectra))
            for factor in ("b", "a"):
                row[f"spectral_norm_{factor}_{when}"] = fmean(getattr(p, f"norm_{factor}_{when}") for p in self.pairs)
        return row


@torch.no_grad()
def refactor_adapters(
    pairs: Sequence[AdapterPair], optimizer: torch.optim.Optimizer, settings: TrainerConfig, balance: float = 0.0
) -> SpectralReport:
    """Refactor pairs in place, together with the AdamW moments of their parameters."""
    reports, skipped = [], []
    for pair in pairs:
        old_b, old_a = (tensor.detach().to("cpu", torch.float64, copy=True) for tensor in (pair.b, pair.a))
        new = refactor_pair(old_b, old_a, balance=balance, damping=settings.damping, floor=settings.floor)
        if new is None:
            skipped.append(pair.layer)
            continue
        pair.b.copy_(new.b)
        pair.a.copy_(new.a)
        g, h = (new.g, new.h) if settings.first_moments == "map" else (None, None)
        _update_moments(optimizer, pair.b, g, old_a, new.a, dim=1)
        _update_moments(optimizer, pair.a, h, old_b, new.b, dim=0)
        reports.append(
            PairReport(
                pair.layer,
                new.spectrum_before.tolist(),
                new.spectrum_after.tolist(),
                *(factor.norm().item() for factor in (old_b, old_a, new.b, new.a)),
            )
        )
    return SpectralReport(balance, reports, skipped)


def _update_moments(
    optimizer: torch.optim.Optimizer,
    parameter: Tensor,
    matrix: Tensor | None,
    old_partner: Tensor,
    new_partner: Tensor,
    dim: int,
) -> None:
    """Carry one factor's moments over to its new coordinates.

    Args:
        matrix: [r, r], applied to the first moments along r. None clears them.
        dim: the dimension of the parameter that is r.
    """
    state: dict[str, Any] = optimizer.state.get(parameter, {})
    if not state:  # before the first step
        return
    first, second = (state[name].to("cpu", torch.float64) for name in ("exp_avg", "exp_avg_sq"))
    if matrix is None:
        new_first = torch.zeros_like(first)
    else:
        new_first = first @ matrix if dim == 1 else matrix @ first
    state["exp_avg"].copy_(new_first)
    state["exp_avg_sq"].copy_(shared_second_moments(second, old_partner, new_partner, new_first, dim))


class SpectralRefactorer:
    """The training callback: call ``after_step`` after every optimizer step.

    It has no state of its own, so resuming restores nothing. Under data parallelism every rank computes the same
    factors, from the same weights and moments.
    """

    def __init__(
        self, settings: TrainerConfig, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        self._settings, self._optimizer = settings, optimizer
        self._pairs = select_pairs(find_pairs(tensors), settings)

    def after_step(self, step: int, total_steps: int) -> SpectralReport | None:
        """Refactor if it is due after ``step`` optimizer steps of ``total_steps``."""
        if step not in due_steps(self._settings, total_steps):
            return None
        balance = balance_at(self._settings, step, total_steps)
        report = refactor_adapters(self._pairs, self._optimizer, self._settings, balance)
        if report.skipped:
            logger.warning(
                "%d adapters are rank-deficient and were not refactored: %s", len(report.skipped), report.skipped
            )
        return report
