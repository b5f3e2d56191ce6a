"""Metrics and sample rows of one GRPO step, computed from its rollouts. Names and meanings: docs/metrics.md."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, zip_longest
from math import fsum, sqrt
from statistics import fmean
from typing import Any

from pipeline.config import RewardTerm
from pipeline.rewards.totals import quality
from pipeline.types import RolloutGroup

UNGRADED = ("timeout", "bad_gold")
"""Outcomes that say nothing about whether the completion is right."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared distances from the mean. For equal values that sum is exactly 0."""

    count: int
    mean: float
    squares: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Moments":
        mean = fmean(values) if values else 0.0
        mean = values[0] if values and all(value == values[0] for value in values) else mean
        return cls(len(values), mean, fsum((value - mean) ** 2 for value in values))

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if not count:
            return self
        difference, share = other.mean - self.mean, other.count / count
        squares = self.squares + other.squares + difference**2 * self.count * share
        return Moments(count, self.mean + difference * share, squares)


@dataclass(frozen=True)
class RolloutSummary:
    """One worker's groups of a step, in numbers that can be combined with those of other workers."""

    sums: dict[str, float]
    """Over completions, except for the number of groups and of those whose rewards are all equal."""
    rewards: dict[str, Moments]
    """``all``, ``new`` and ``replayed``."""
    shortest: int
    longest: int
    oldest: int
    """Lowest version of the weights that wrote them."""

    @classmethod
    def of(
        cls, groups: Sequence[RolloutGroup], replayed: Sequence[bool], terms: Sequence[RewardTerm] | None = None
    ) -> "RolloutSummary":
        """
        Args:
            replayed: for each group, True if its problem came from the replay buffer.
            terms: the reward's terms, if totals are normalised: quality is reported too.
        """
        completions = [completion for group in groups for completion in group.completions]
        rewards = [reward for group in groups for reward in group.rewards]
        lengths = [len(completion.token_ids) for completion in completions]
        totals = [[reward.total for reward in group.rewards] for group in groups]
        equal = [len({r.total for r in group.rewards if r.outcome not in UNGRADED}) < 2 for group in groups]
        versions = [group.weight_id.step for group in groups]
        sums: dict[str, float] = {
            "groups": len(groups),
            "equal": sum(equal),
            "replayed": sum(replayed),
            "versions": sum(versions),
            "tokens": sum(lengths),
            "truncated": sum(completion.stop_reason == "length" for completion in completions),
        }
        for reward in rewards:
            sums[reward.outcome] = sums.get(reward.outcome, 0) + 1
            for name, part in reward.parts.items():
                sums[f"reward/{name}"] = sums.get(f"reward/{name}", 0.0) + part
        if terms is not None:
            sums["quality"] = fsum(quality(reward.parts, terms) for reward in rewards)
        by_origin = {
            name: Moments.of([t for own, r in zip(totals, replayed, strict=True) if r in wanted for t in own])
            for name, wanted in (("all", (False, True)), ("new", (False,)), ("replayed", (True,)))
        }
        return cls(sums, by_origin, min(lengths), max(lengths), min(versions))


def combined_metrics(summaries: Sequence[RolloutSummary], step: int) -> dict[str, float]:
    """Rewards, outcomes and lengths of all groups of a step.

    Args:
        summaries: of all workers.
        step: number of updates behind the weights that learn from these groups.
    """
    sums = Counter[str]()
    for summary in summaries:
        sums.update(summary.sums)
    rewards = {
        name: reduce(Moments.__add__, (summary.rewards[name] for summary in summaries))
        for name in ("all", "new", "replayed")
    }
    count, num_groups = rewards["all"].count, sums["groups"]
    means = [name for name in sums if name.startswith("reward/")]
    oldest = min(summary.oldest for summary in summaries)
    return {
        "reward_mean": rewards["all"].mean,
        "reward_std": sqrt(rewards["all"].squares / count),
        **_by_origin(rewards, sums["replayed"]),
        **{name: sums[name] / count for name in means},
        **{f"{outcome}_frac": sums[outcome] / count for outcome in ("correct", "unparsed", "timeout", "bad_gold")},
        "zero_variance_frac": sums["equal"] / num_groups,
        "completion_length_min": min(summary.shortest for summary in summaries),
        "completion_length_mean": sums["tokens"] / count,
        "completion_length_max": max(summary.longest for summary in summaries),
        "truncated_frac": sums["truncated"] / count,
        **({"reward_quality": sums["quality"] / count} if "quality" in sums else {}),
        "num_rollout_tokens": sums["tokens"],
        "policy_version": oldest,
        "staleness": step - oldest,
        "staleness_mean": step - sums["versions"] / num_groups,
    }


def _by_origin(rewards: Mapping[str, Moments], num_replayed: float) -> dict[str, float]:
    """Mean rewards of new and of replayed problems; empty if nothing was replayed."""
    if not num_replayed:
        return {}
    means = {f"reward_mean_{name}": rewards[name].mean for name in ("new", "replayed") if rewards[name].count}
    return {"num_replayed": num_replayed, **means}


def sample_rows(groups: Sequence[RolloutGroup], step: int, stage: str) -> list[dict[str, Any]]:
    """One JSON row per completion, for samples/."""
    return [
        {
            "step": step,
            "stage": stage,
            "problem_id": group.problem.id,
            "level": group.problem.level,
            "question": group.problem.question,
            "gold": group.problem.gold,
            "completion": completion.text,
            "reward": reward.total,
            "parts": reward.parts,
            "outcome": reward.outcome,
            "stop_reason": completion.stop_reason,
        }
        for group in groups
        for completion, reward in zip(group.completions, group.rewards, strict=True)
    ]


def ungraded_rows(groups: Sequence[RolloutGroup], step: int, stage: str) -> list[dict[str, Any]]:
    """Sample rows of completions that could not be graded, at most one per outcome and problem."""
    rows = [row for row in sample_rows(groups, step, stage) if row["outcome"] in UNGRADED]
    return list({(row["outcome"], row["problem_id"]): row for row in reversed(rows)}.values())[::-1]


def chosen_ungraded(rows: Sequence[dict[str, Any]], limit: int = 4) -> list[dict[str, Any]]:
    """At most ``limit`` of these rows. The outcomes take turns, so that a frequent one does not crowd out the other."""
    by_outcome = [[row for row in rows if row["outcome"] == outcome] for outcome in UNGRADED]
    in_turn = chain.from_iterable(zip_longest(*by_outcome))
    return [row for row in in_turn if row is not None][:limit]
