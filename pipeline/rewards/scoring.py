"""The weighted sum of a completion's rewards."""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from pipeline.config import RewardTerm
from pipeline.errors import RewardError, first_line
from pipeline.rewards.registry import make_reward
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId
from pipeline.verifier import Grader, Verdict

logger = logging.getLogger(__name__)
TRY_TIMEOUT_S = 60.0
"""Seconds that a reward has for a made-up group."""


def score_group(group: RolloutGroup, terms: Sequence[RewardTerm], grader: Grader) -> tuple[RewardBreakdown, ...]:
    """One breakdown per completion, in order.

    Raises:
        RewardError: a reward is unknown, or returned anything but one finite number per completion, or the weighted sum
            is not finite. Advantages are computed from float32 numbers, so they must be finite in float32.
    """
    verdicts = grader.grade_batch([(completion.text, group.problem.gold) for completion in group.completions])
    values = {term.name: _call(term.name, group, verdicts) for term in terms}
    totals = [sum(term.weight * values[term.name][index] for term in terms) for index in range(len(verdicts))]
    if not _all_finite(totals):
        weights = ", ".join(f"{term.weight:g} {term.name}" for term in terms)
        raise RewardError(
            f"the weighted sum of rewards ({weights}) must be finite in float32, got {totals}. Lower the weights in "
            "reward.functions."
        )
    return tuple(
        RewardBreakdown(
            total=totals[index],
            parts={name: column[index] for name, column in values.items()},
            outcome=verdict.outcome,
        )
        for index, verdict in enumerate(verdicts)
    )


def try_rewards(terms: Sequence[RewardTerm], problem: Problem, num_completions: int) -> None:
    """Call each reward once, on made-up completions of a problem.

    Raises:
        RewardError: it fails, does not return in time, or returns anything but one finite number per completion.
    """
    group, verdicts = _made_up(problem, num_completions)
    for term in terms:
        ended: list[RewardError | None] = []
        thread = threading.Thread(target=_try, args=(term.name, group, verdicts, ended), daemon=True)
        thread.start()
        thread.join(TRY_TIMEOUT_S)
        if not ended:
            raise RewardError(
                f"reward {term.name!r} must return, got nothing in {TRY_TIMEOUT_S:g} s on a made-up group."
            )
        if ended[0]:
            raise ended[0]


def _try(name: str, group: RolloutGroup, verdicts: Sequence[Verdict], ended: list[RewardError | None]) -> None:
    try:
        _call(name, group, verdicts)
    except RewardError as error:
        # A reward that sets alarms needs a main thread, which it has in a grader.
        ended.append(None if "main thread" in str(error.__cause__) else error)
    else:
        ended.append(None)


def _made_up(problem: Problem, num_completions: int) -> tuple[RolloutGroup, list[Verdict]]:
    """A right answer, a wrong one in the wrong form, and one that was cut off, in turns."""
    kinds: list[tuple[str, Literal["stop", "length"]]] = [
        (f"<reasoning>It is {problem.gold}.</reasoning><answer>{problem.gold}</answer>", "stop"),
        ("I do not know.", "stop"),
        ("<reasoning>First", "length"),
    ]
    found = [Verdict("correct", "exact", problem.gold), Verdict("unparsed"), Verdict("unparsed")]
    chosen = [index % len(kinds) for index in range(num_completions)]
    completions = tuple(Completion((1, 2, 3), (-0.5, -0.5, -0.5), *kinds[index]) for index in chosen)
    return RolloutGroup(problem, (1, 2, 3), completions, WeightId(0, 0)), [found[index] for index in chosen]


def _call(name: str, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    function = make_reward(name, None)
    try:
        result = function(group, verdicts)
        result = list(result) if isinstance(result, Iterator) else result  # a generator fails only now
    except (Exception, SystemExit) as error:  # a plug-in can raise anything
        logger.exception("reward %s failed", name)
        raise RewardError(
            f"reward {name!r} must score a group of {len(verdicts)} completions, got {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    try:
        values = [float(value) for value in result]
    except (TypeError, ValueError, OverflowError):
        raise RewardError(f"reward {name!r} must return one number per completion, got {result!r:.100}.") from None
    if len(values) != len(verdicts):
        raise RewardError(f"reward {name!r} must return {len(verdicts)} values, one per completion, got {len(values)}.")
    if not _all_finite(values):
        raise RewardError(
            f"reward {name!r} must return values that are finite in float32, got {values}: one spoils the whole group."
        )
    return values


def _all_finite(values: Sequence[float]) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.asarray(values, dtype=np.float64).astype(np.float32)).all())
