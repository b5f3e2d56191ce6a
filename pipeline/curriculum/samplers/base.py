"""Parts that all samplers share: their interface, outcomes of groups, and seeded draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.config import GRPOConfig
from pipeline.seeds import derive_seed
from pipeline.types import ProblemHead, RolloutGroup

UNGRADED = ("timeout", "bad_gold")
"""Outcomes that say nothing about whether a completion is right."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One group, in numbers."""

    row: int | None
    """The problem, as in StageProblems. None: the stage has no sampler."""
    num_completions: int
    """Graded ones. The rates and means below are over them, and 0 without any."""
    solve_rate: float
    """Share that is correct."""
    mean_abs_advantage: float
    """Mean absolute advantage within the group."""
    has_variance: bool
    """Rewards differ: the group teaches something."""
    num_tokens: int
    """Sampled tokens of all completions."""

    @classmethod
    def of(cls, group: RolloutGroup, row: int | None, settings: GRPOConfig) -> "Outcome":
        """Ungraded and truncated completions count as ``grpo.mask_ungraded`` and ``grpo.mask_truncated`` say."""
        graded = [reward for reward in group.rewards if reward.outcome not in UNGRADED]
        both = [
            (completion, reward)
            for completion, reward in zip(group.completions, group.rewards, strict=True)
            if not settings.mask_ungraded or reward.outcome not in UNGRADED
        ]
        # Through float32, which the learner has.
        totals = np.array([reward.total for _, reward in both], np.float32).astype(np.float64)
        has_variance = len(totals) > 1 and bool(totals.min() < totals.max())
        if settings.mask_truncated and all(each.stop_reason == "length" for each, _ in both):
            has_variance = False
        advantage = 0.0
        if has_variance:
            advantage = float(np.abs(totals - totals.mean()).mean())
            advantage /= float(totals.std()) + 1e-6 if settings.normalize_std else 1.0
        return cls(
            row=row,
            num_completions=len(graded),
            solve_rate=sum(reward.outcome == "correct" for reward in graded) / max(len(graded), 1),
            mean_abs_advantage=advantage,
            has_variance=has_variance,
            num_tokens=sum(len(completion.token_ids) for completion in group.completions),
        )


@dataclass(frozen=True)
class StageProblems:
    """The problems that a stage may ask, each with a row."""

    own: Sequence[ProblemHead]
    """The stage's own problems, from row 0."""
    replayed_rates: Sequence[float | None] = ()
    """One per problem of the replay buffer, whose rows follow: its best solve rate at the end of its own stage, None if
    that was not measured."""
    levels: Sequence[str] | None = None
    """All levels, easiest first. None: they are in natural order."""


@dataclass
class StageLength:
    """A stage ends after its steps, or when its budget of sampled tokens is spent."""

    num_steps: int
    max_sampled_tokens: int | None = None
    sampled_tokens: int = 0
    """So far."""

    def done(self, step: int) -> float:
        """The share of the stage that is over before a step, in [0, 1]. A repeated stage stays at its end."""
        by_steps = step / max(self.num_steps - 1, 1)
        by_tokens = self.sampled_tokens / self.max_sampled_tokens if self.max_sampled_tokens else 0.0
        return min(max(by_steps, by_tokens), 1.0)


class Sampler(Protocol):
    """Chooses rows of the stage's own problems: a function of the seed, the step, and what it observed and chose.

    It keeps no random generator. After ``load`` it makes the same choices as the sampler whose ``state`` it was given.
    """

    def choose(self, step: int, count: int) -> list[int]:
        """The rows for a step, counted from 0 within the stage. A step may ask more than once."""

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None:
        """Take in the outcomes of a step's groups, of all learners, in the order of the batch."""

    def state(self) -> dict[str, Any]:
        """Plain JSON, for checkpoints."""

    def load(self, state: dict[str, Any]) -> None: ...


def generator(*seed: object) -> np.random.Generator:
    """A new random generator, the same on every machine."""
    return np.random.default_rng(derive_seed(*seed))


def deal(weights: Sequence[float], count: int, offset: float) -> list[int]:
    """Divide places by weights: every share is rounded down or up, and is exact on average over offsets.

    Args:
        offset: drawn from [0, 1).
    """
    exact = np.cumsum(np.asarray(weights, np.float64)) / np.sum(weights) * count
    ends = np.minimum(np.floor(exact.round(9) + offset), count)  # rounded: a weight of 0 must get nothing
    counts: list[int] = np.diff(ends, prepend=0).astype(int).tolist()
    return counts


def nearest(distances: npt.NDArray[np.float64], rows: Rows, count: int, random: np.random.Generator) -> list[int]:
    """The rows with the smallest distances; ties are broken at random. If there are too few rows, they are repeated."""
    order = rows[np.lexsort((random.random(len(rows)), distances))]
    chosen: list[int] = np.resize(order, count).tolist()
    return chosen
