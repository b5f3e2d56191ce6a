"""The weighted sum of a completion's rewards."""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from pipeline.config import RewardConfig, RewardTerm
from pipeline.errors import ClusterError, RewardError, first_line
from pipeline.rewards.registry import RewardContext, RewardFunction, make_reward
from pipeline.rewards.state import RewardState, StatefulRewards
from pipeline.rewards.totals import totals
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WeightId
from pipeline.verifier import Verdict

logger = logging.getLogger(__name__)
TRY_TIMEOUT_S = 60.0
"""Time limit for one reward on a made-up group, in seconds."""


class Scorer:
    """Scores groups with the reward terms of a job.

    Args:
        context: passed to reward classes. None: there are only functions.

    Raises:
        RewardError: a reward is unknown, a class cannot be created, or its state is no JSON value.
    """

    def __init__(self, config: RewardConfig, context: RewardContext | None = None) -> None:
        self._config = config
        self._rewards = {term.name: make_reward(term.name, context) for term in config.functions}
        self._stateful = StatefulRewards(self._rewards)

    def score(
        self, group: RolloutGroup, verdicts: Sequence[Verdict], state: RewardState | None = None
    ) -> tuple[RewardBreakdown, ...]:
        """One breakdown per completion, in order.

        Args:
            state: the state of the rewards at the end of the previous step. None: the initial state.

        Raises:
            RewardError: a reward returned anything but one finite number per completion, or the weighted sum is not
                finite. Advantages are computed in float32, so all of these must be finite in float32.
        """
        state = state or {}
        self._stateful.set(state)
        values = {name: call(name, reward, group, verdicts) for name, reward in self._rewards.items()}
        parts = [{name: column[index] for name, column in values.items()} for index in range(len(verdicts))]
        sums = totals(parts, self._config, state.get("raw", {}))
        if not _all_finite(sums):
            weights = ", ".join(f"{term.weight:g} {term.name}" for term in self._config.functions)
            raise RewardError(
                f"the weighted sum of rewards ({weights}) must be finite in float32, got {sums}. Lower the weights in "
                "reward.functions."
            )
        scored = zip(sums, parts, verdicts, strict=True)
        return tuple(RewardBreakdown(total, own, verdict.outcome) for total, own, verdict in scored)


def try_rewards(terms: Sequence[RewardTerm], problem: Problem, num_completions: int, context: RewardContext) -> None:
    """Call each reward once, on made-up completions of a problem.

    Raises:
        RewardError: a reward fails, is too slow, or returns anything but one finite number per completion.
    """
    group, verdicts = _made_up(problem, num_completions)
    for term in terms:
        ended: list[RewardError | None] = []
        thread = threading.Thread(target=_try, args=(term.name, context, group, verdicts, ended), daemon=True)
        thread.start()
        thread.join(TRY_TIMEOUT_S)
        if not ended:
            raise RewardError(
                f"reward {term.name!r} must return, got nothing in {TRY_TIMEOUT_S:g} s on a made-up group."
            )
        if ended[0]:
            raise ended[0]


def _try(
    name: str,
    context: RewardContext,
    group: RolloutGroup,
    verdicts: Sequence[Verdict],
    ended: list[RewardError | None],
) -> None:
    try:
        call(name, make_reward(name, context), group, verdicts)
    except RewardError as error:
        # A reward that sets alarms needs the main thread. In a grader it runs there, here it does not.
        ended.append(None if "main thread" in str(error.__cause__) else error)
    else:
        ended.append(None)


def _made_up(problem: Problem, num_completions: int) -> tuple[RolloutGroup, list[Verdict]]:
    """A group whose completions take turns: a right answer, a wrong one without tags, and one that was cut off."""
    solved = f"<reasoning>It is {problem.gold}.</reasoning><answer>{problem.gold}</answer>"
    kinds: list[tuple[str, Literal["stop", "length"]]] = [
        (problem.solution or solved if problem.writing else solved, "stop"),
        ("I do not know.", "stop"),
        ("<reasoning>First", "length"),
    ]
    found = [Verdict("correct", "exact", problem.gold), Verdict("unparsed"), Verdict("unparsed")]
    chosen = [index % len(kinds) for index in range(num_completions)]
    completions = tuple(Completion.of((1, 2, 3), (-0.5, -0.5, -0.5), *kinds[index]) for index in chosen)
    return RolloutGroup(problem, (1, 2, 3), completions, WeightId(0, 0)), [found[index] for index in chosen]


def call(name: str, reward: RewardFunction, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    """One value per completion. Raises RewardError if the reward fails or returns anything else."""
    try:
        result = reward(group, verdicts)
        result = list(result) if isinstance(result, Iterator) else result  # a generator fails only now
    except ClusterError:  # from an engine that the reward asked; a restart may fix it
        raise
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
