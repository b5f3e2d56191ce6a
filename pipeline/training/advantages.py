"""Advantages of completions: their rewards relative to others.

Shapes: G groups of N completions, [G, N]; a worker has some of the groups. A mask is False at completions that count
neither in means nor in spreads; their own advantages are 0. Everything is computed in float64, so squares of large
float32 rewards do not overflow, and the mean of equal float32 rewards is exactly their value.

Formulas and sources: docs/losses.md.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.config import GRPOConfig

SumOverRanks = Callable[[Sequence[float]], list[float]]
"""Numbers, each summed over all workers: ``Ranks.sum``."""


def advantages_of(settings: GRPOConfig, rewards: Tensor, mask: Tensor, sum_over_ranks: SumOverRanks) -> Tensor:
    """[G, N]: the advantages that the settings ask for. Workers call it together.

    Raises:
        ValueError: rewards is not 2-D, or N < 2.
    """
    if settings.advantage_baseline == "batch":
        advantages = batch_centered(rewards, mask, sum_over_ranks)
    else:
        advantages = group_centered(rewards, mask)
    if settings.advantage_baseline == "leave_one_out":
        advantages = left_one_out(advantages, mask)
    if settings.normalize_std and settings.normalize_over == "batch":
        advantages = batch_normalized(advantages, mask, sum_over_ranks)
    elif settings.normalize_std:
        advantages = group_normalized(advantages, mask)
    return advantages.to(rewards.dtype)


def equal_rewards(rewards: Tensor, mask: Tensor | None = None) -> Tensor:
    """[G] bool: True where all kept rewards [G, N] of a group are the same, so that it teaches nothing."""
    kept = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    highest = rewards.masked_fill(~kept, -torch.inf).amax(dim=1)
    lowest = rewards.masked_fill(~kept, torch.inf).amin(dim=1)
    return highest <= lowest


def group_centered(rewards: Tensor, mask: Tensor) -> Tensor:
    """Rewards minus the mean of their group. Rows sum to 0; rows of equal rewards are exactly 0."""
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be [num_groups, group_size >= 2], got {tuple(rewards.shape)}")
    exact = rewards.double()
    centered = (exact - _group_mean(exact, mask)) * mask
    # Without this, rounding in the mean gives equal rewards an advantage, and dividing by their std blows it up.
    return centered.masked_fill(equal_rewards(rewards, mask)[:, None], 0.0)


def left_one_out(centered: Tensor, mask: Tensor) -> Tensor:
    """Rewards minus the mean of the other completions in their group, given rewards minus the mean of all n of them.

    That is n / (n - 1) times as much. A completion that is alone in its group has an advantage of 0.
    """
    count = mask.sum(dim=1, keepdim=True).double()
    return centered * (count / (count - 1).clamp(min=1))


def group_normalized(advantages: Tensor, mask: Tensor, eps: float = 1e-6) -> Tensor:
    """Advantages whose mean is 0 in every group, divided by their population standard deviation there, plus ``eps``."""
    return advantages / (_group_mean(advantages.square(), mask).sqrt() + eps)


def batch_centered(rewards: Tensor, mask: Tensor, sum_over_ranks: SumOverRanks) -> Tensor:
    """Rewards minus the mean over the groups of all workers."""
    exact = rewards.double()
    total, count = sum_over_ranks([(exact * mask).sum().item(), float(mask.sum())])
    return (exact - total / max(count, 1)) * mask


def batch_normalized(advantages: Tensor, mask: Tensor, sum_over_ranks: SumOverRanks, eps: float = 1e-6) -> Tensor:
    """Advantages whose mean is 0 over all workers' groups, divided by their population standard deviation there."""
    squares, count = sum_over_ranks([(advantages * mask).square().sum().item(), float(mask.sum())])
    return advantages / (math.sqrt(squares / max(count, 1)) + eps)


def overlong_penalties(lengths: Tensor, max_length: int, buffer: int, penalty: float) -> Tensor:
    """DAPO's soft punishment, to be subtracted from rewards: 0 up to ``buffer`` tokens before ``max_length``, then
    rising linearly to ``penalty``. With a buffer of 0 nothing is punished. arXiv:2503.14476."""
    surplus: Tensor = (lengths - (max_length - buffer)).clamp(min=0, max=buffer) / max(buffer, 1)
    return surplus * penalty


def _group_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
