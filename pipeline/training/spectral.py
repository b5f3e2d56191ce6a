"""Spectral refactoring of LoRA: the same product B A from other factors, and Adam's moments in their coordinates.

Shapes: B [d_out, r], A [r, d_in]; the layer adds ``scaling * B A``. The maths, and what is preserved: docs/spectral.md.
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
from torch.nn.functional import pad

from pipeline.config import TrainerConfig
from pipeline.errors import ModelError

logger = logging.getLogger(__name__)

RANK_TOLERANCE = 1e-6
"""Singular values below this share of the largest count as zero: float32 rounding leaves about 1e-7."""
MAX_STEP = 10.0
"""Learning rates that Adam's mapped first moments may move a parameter in one step."""


# Schedule ----------------------------------------------------------------------------------------


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


# One pair ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refactored:
    """New factors of one pair, in float64, and how the old ones follow from them."""

    b: Tensor
    """B' [d_out, r]; its columns are orthogonal."""
    a: Tensor
    """A' [r, d_in]; its rows are orthogonal, and none is 0."""
    g: Tensor
    """[r, r], invertible: A = g A'."""
    h: Tensor
    """[r, r]: B = B' h. In mode ``exact`` it is the inverse of g."""
    spectrum_before: Tensor
    """[r], the singular values of B A, largest first."""
    spectrum_after: Tensor
    """[r], those of B' A', in the same order."""


def balanced_spectrum(spectrum: Tensor, balance: float) -> Tensor:
    """(1 - balance) S + balance mean(S), for singular values [r] above 0; zeros stay, and are not in the mean.

    The sum, which is the nuclear norm of B A, stays the same.
    """
    above = spectrum > RANK_TOLERANCE * spectrum.max()
    mean = (spectrum * above).sum() / above.sum().clamp(min=1)
    return torch.where(above, (1 - balance) * spectrum + balance * mean, spectrum)


def refactor_pair(
    b: Tensor, a: Tensor, *, balance: float = 0.0, damping: float = 0.0, floor: float = 1e-4
) -> Refactored | None:
    """B' = Q_B U S' / D and A' = D V^T Q_A^T with D^2 = max(S' + damping, floor): S'^(1/2) in both where S' is large.

    Args:
        b, a: [d_out, r] and [r, d_in], of any dtype. Computed on the CPU in float64.
        balance: 0 leaves B A unchanged, 1 makes its singular values equal.
        damping, floor: see TrainerConfig. Neither changes B' A'; floor must be above 0.

    Returns:
        None when A is rank-deficient (or anything is not finite): no invertible r x r matrix then leads to
        orthogonal rows.
    """
    b, a = (tensor.detach().to("cpu", torch.float64) for tensor in (b, a))
    r = a.shape[0]
    if not (b.isfinite().all() and a.isfinite().all()) or r > a.shape[1]:
        return None
    q_a, r_a = torch.linalg.qr(a.T)
    sizes = torch.linalg.svdvals(r_a)
    if sizes[-1] <= RANK_TOLERANCE * sizes[0]:
        return None
    q_b, r_b = torch.linalg.qr(b)
    u, s, vt = torch.linalg.svd(r_b @ r_a.T, full_matrices=True)
    columns, s = pad(q_b @ u, (0, r - len(s))), pad(s, (0, r - len(s)))  # d_out < r: the other columns are 0
    rows = vt @ q_a.T
    # Singular vectors are unique up to a common sign: the largest entry of each row of A' is positive.
    signs = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
    columns, rows, vt = columns * signs.T, rows * signs, vt * signs
    new_s = balanced_spectrum(s, balance)
    d = (new_s + damping).clamp(min=floor).sqrt()
    ratio = torch.where(new_s > 0, s / new_s, 1.0)
    g_inverse = torch.linalg.solve_triangular(r_a.T, d[:, None] * vt, upper=False, left=False)
    return Refactored(
        b=columns * (new_s / d),
        a=d[:, None] * rows,
        g=r_a.T @ vt.T / d,
        h=ratio[:, None] * g_inverse,
        spectrum_before=s,
        spectrum_after=new_s,
    )


def shared_second_moments(v: Tensor, old_partner: Tensor, new_partner: Tensor, first: Tensor, dim: int) -> Tensor:
    """Adam's second moments of a new factor: the old sums over r, shared out by the partner's squared norms.

    A gradient reaches a factor through its partner, so its square goes with the partner's squared norm.

    Args:
        v: the old factor's, [d_out, r] or [r, d_in].
        old_partner, new_partner: A and A' for B, B and B' for A.
        first: the new factor's first moments, like v. No entry of the result is below (first / MAX_STEP)^2.
        dim: of r in v; the partner has it at the other place.
    """
    norms, total = new_partner.square().sum(dim=dim, keepdim=True).T, old_partner.square().sum()
    shared = v.sum(dim=dim, keepdim=True) * (norms / total if total > 0 else torch.zeros_like(norms))
    return torch.maximum(shared, (first / MAX_STEP).square())


# A model -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdapterPair:
    """The parameters of one layer's adapter."""

    layer: str
    """As in the plain model: ``model.layers.0.self_attn.q_proj``."""
    b: Tensor
    a: Tensor


def find_pairs(tensors: Mapping[str, Tensor], adapter: str = "default") -> list[AdapterPair]:
    """The linear LoRA pairs among trainable tensors named as peft names them, in their order."""
    pairs, ending = [], f".lora_A.{adapter}.weight"
    for name, a in tensors.items():
        b = tensors.get(name.replace(".lora_A.", ".lora_B.")) if name.endswith(ending) else None
        if b is not None and a.dim() == b.dim() == 2:
            pairs.append(AdapterPair(name.removesuffix(ending).removeprefix("base_model.model."), b, a))
    return pairs


def select_pairs(pairs: Sequence[AdapterPair], settings: TrainerConfig) -> list[AdapterPair]:
    """Those that ``layers`` names and whose layer is of the right size. Raises ModelError when none is left."""
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
    """One pair, in plain numbers."""

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
    """Layers left as they were: their A is rank-deficient or not finite."""

    def metrics(self) -> dict[str, float]:
        """For a row of metrics.jsonl: counts, and means over the pairs."""
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


def effective_rank(spectrum: Sequence[float]) -> float:
    """exp of the entropy of the singular values' shares: k for k equal ones, 0 when all are 0. Roy & Vetterli 2007."""
    total = sum(spectrum)
    return math.exp(-sum(s / total * math.log(s / total) for s in spectrum if s > 0)) if total > 0 else 0.0


@torch.no_grad()
def refactor_adapters(
    pairs: Sequence[AdapterPair], optimizer: torch.optim.Optimizer, settings: TrainerConfig, balance: float = 0.0
) -> SpectralReport:
    """Refactor pairs in place, with the moments that an AdamW holds of them."""
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
    """Map one factor's first moments by a matrix [r, r] at the side of r (None clears them), and its second moments."""
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
    """The callback: call ``after_step`` after every optimizer step. It keeps no state of its own, so a resumed run
    needs none, and under data parallelism every rank computes the same from the same weights and moments."""

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
