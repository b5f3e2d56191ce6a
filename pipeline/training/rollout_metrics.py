"""Metrics and sample rows of one GRPO step, computed from its rollouts. Names and meanings: docs/metrics.md."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from statistics import fmean, pstdev
from typing import Any

from pipeline.types import RolloutGroup

UNGRADED = ("timeout", "bad_gold")
"""Outcomes that say nothing about whether the completion is right."""


def rollout_metrics(groups: Sequence[RolloutGroup], replayed: Sequence[bool]) -> dict[str, float]:
    """Rewards, outcomes and lengths of all groups of a step.

    Args:
        replayed: for each group, True if its problem came from the replay buffer.
    """
    completions = [completion for group in groups for completion in group.completions]
    rewards = [reward for group in groups for reward in group.rewards]
    totals = [reward.total for reward in rewards]
    lengths = [len(completion.token_ids) for completion in completions]
    outcomes = [reward.outcome for reward in rewards]
    equal = [len({r.total for r in group.rewards if r.outcome not in UNGRADED}) < 2 for group in groups]
    return {
        "reward_mean": fmean(totals),
        "reward_std": pstdev(totals),
        **_by_origin(groups, replayed),
        **{f"reward/{name}": fmean(reward.parts[name] for reward in rewards) for name in rewards[0].parts},
        "correct_frac": outcomes.count("correct") / len(outcomes),
        "unparsed_frac": outcomes.count("unparsed") / len(outcomes),
        "timeout_frac": outcomes.count("timeout") / len(outcomes),
        "bad_gold_frac": outcomes.count("bad_gold") / len(outcomes),
        "zero_variance_frac": sum(equal) / len(equal),
        "completion_length_min": min(lengths),
        "completion_length_mean": fmean(lengths),
        "completion_length_max": max(lengths),
        "truncated_frac": sum(c.stop_reason == "length" for c in completions) / len(completions),
    }


def _by_origin(groups: Sequence[RolloutGroup], replayed: Sequence[bool]) -> dict[str, float]:
    """Mean rewards of new and of replayed problems; empty if nothing was replayed."""
    if not any(replayed):
        return {}
    metrics: dict[str, float] = {"num_replayed": sum(replayed)}
    for name, wanted in (("new", False), ("replayed", True)):
        of_origin = [group for group, is_replayed in zip(groups, replayed, strict=True) if is_replayed == wanted]
        if of_origin:
            metrics[f"reward_mean_{name}"] = fmean(reward.total for group in of_origin for reward in group.rewards)
    return metrics


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


def ungraded_rows(groups: Sequence[RolloutGroup], step: int, stage: str, limit: int = 4) -> list[dict[str, Any]]:
    """Sample rows of at most ``limit`` completions that could not be graded.

    At most one per outcome and problem. The outcomes take turns, so that a frequent one does not crowd out the other.
    """
    rows = [row for row in sample_rows(groups, step, stage) if row["outcome"] in UNGRADED]
    by_outcome = [{r["problem_id"]: r for r in reversed(rows) if r["outcome"] == outcome} for outcome in UNGRADED]
    in_turn = zip_longest(*(reversed(by_problem.values()) for by_problem in by_outcome))
    return [row for row in chain.from_iterable(in_turn) if row is not None][:limit]
