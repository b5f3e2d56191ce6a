"""New factors for one LoRA pair, and Adam's moments in their coordinates.

Shapes: B [d_out, r], A [r, d_in]; the layer adds ``scaling * B A``. Derivation and invariants: docs/spectral.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

RANK_TOLERANCE = 1e-6
"""Singular values below this share of the largest count as zero. Float32 rounding leaves about 1e-7."""
MAX_STEP = 10.0
"""Most that Adam's mapped first moments may move a parameter in one step, in learning rates."""


@dataclass(frozen=True)
class Refactored:
    """New factors of one pair, and the matrices that map them to the old ones. All in float64."""

    b: Tensor
    """B' [d_out, r], with orthogonal columns."""
    a: Tensor
    """A' [r, d_in], with orthogonal rows; no row is 0."""
    g: Tensor
    """[r, r], invertible: A = g A'."""
    h: Tensor
    """[r, r]: B = B' h. In mode ``exact`` it is the inverse of g."""
    spectrum_before: Tensor
    """[r], the singular values of B A, largest first."""
    spectrum_after: Tensor
    """[r], the singular values of B' A', in the same order."""


def balanced_spectrum(spectrum: Tensor, balance: float) -> Tensor:
    """(1 - balance) S + balance mean(S) over the singular values [r] above 0. Zeros stay 0 and do not enter the mean.

    The sum, which is the nuclear norm of B A, stays the same.
    """
    above = spectrum > RANK_TOLERANCE * spectrum.max()
    mean = (spectrum * above).sum() / above.sum().clamp(min=1)
    return torch.where(above, (1 - balance) * spectrum + balance * mean, spectrum)


def refactor_pair(
    b: Tensor, a: Tensor, *, balance: float = 0.0, damping: float = 0.0, floor: float = 1e-4
) -> Refactored | None:
    """B' = Q_B U S' / D and A' = D V^T Q_A^T with D^2 = max(S' + damping, floor).

    Where S' is large, both factors hold its square root.

    Args:
        b, a: [d_out, r] and [r, d_in], of any dtype. Computed on the CPU in float64.
        balance: 0 leaves B A unchanged, 1 makes its singular values equal.
        damping, floor: see TrainerConfig. Neither changes B' A'; floor must be above 0.

    Returns:
        None if A is rank-deficient, because then no invertible r x r matrix leads to orthogonal rows; also if a
        factor is not finite.
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
    columns, s = pad(q_b @ u, (0, r - len(s))), pad(s, (0, r - len(s)))  # if d_out < r, the other columns are 0
    rows = vt @ q_a.T
    # Singular vectors are unique up to a common sign. Make the largest entry of each row of A' positive.
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
    """Adam's second moments for a new factor: the old sums over r, shared out by the partner's squared norms.

    A gradient reaches a factor through its partner, so its square is proportional to the partner's squared norm.

    Args:
        v: the old factor's second moments, [d_out, r] or [r, d_in].
        old_partner, new_partner: A and A' for B, B and B' for A.
        first: the new factor's first moments, shaped like v. No entry of the result is below (first / MAX_STEP)^2.
        dim: the dimension of v whose size is r. In the partner it is the other dimension.
    """
    norms, total = new_partner.square().sum(dim=dim, keepdim=True).T, old_partner.square().sum()
    shared = v.sum(dim=dim, keepdim=True) * (norms / total if total > 0 else torch.zeros_like(norms))
    return torch.maximum(shared, (first / MAX_STEP).square())


def effective_rank(spectrum: Sequence[float]) -> float:
    """exp of the entropy of the singular values' shares: k for k equal ones, 0 if all are 0. Roy & Vetterli 2007."""
    total = sum(spectrum)
    return math.exp(-sum(s / total * math.log(s / total) for s in spectrum if s > 0)) if total > 0 else 0.0
