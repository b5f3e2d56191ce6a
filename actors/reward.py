"""Scores completions. actors/driver/start.py makes it a Ray actor; tests build it directly."""

from collections.abc import Callable, Sequence

from pipeline.config import Config
from pipeline.data.table import ProblemTable, data_cache, load_table
from pipeline.errors import RewardError
from pipeline.questions.judge import verdict_of
from pipeline.rewards.registry import RewardContext
from pipeline.rewards.scoring import Scorer
from pipeline.rewards.state import RewardState
from pipeline.types import Answer, Completion, EngineRecord, RewardBreakdown, RolloutGroup
from pipeline.verifier import Grader, Verdict

Solve = Callable[[RolloutGroup, Sequence[str]], list[tuple[Completion, ...]]]


class RewardWorker:
    """Grades and scores groups, one at a time. An unknown reward fails in the constructor, before any rollout.

    Args:
        solve: asks the solver of ``questions.solver``.
    """

    def __init__(self, config: Config, solve: Solve | None = None) -> None:
        self._questions = config.questions
        self._scorer = Scorer(config.reward, reward_context(config, solve))
        self._grader = Grader(config.reward.num_children, config.reward.timeout_s, config.reward.memory_limit_mib)
        self._grader.start()

    def score(
        self, asked: RolloutGroup, answer: Answer, state: RewardState | None = None
    ) -> tuple[EngineRecord, tuple[RewardBreakdown, ...]]:
        """The rewards of an engine's completions, in their order, and the record of the answer that has them.

        Args:
            asked: the group as it was asked for, without completions.
            state: the state of the rewards when it was asked for. None: the initial state.
        """
        return answer.record, self.rewards(asked.answered(answer), state)

    def rewards(self, group: RolloutGroup, state: RewardState | None = None) -> tuple[RewardBreakdown, ...]:
        """The rewards of a group's completions, in their order."""
        return self._scorer.score(group, self._verdicts(group), state)

    def _verdicts(self, group: RolloutGroup) -> list[Verdict]:
        texts = [completion.text for completion in group.completions]
        if group.problem.writing:
            return [verdict_of(group.problem, text, self._questions) for text in texts]
        return self._grader.grade_batch([(text, group.problem.gold) for text in texts])

    def close(self) -> None:
        self._grader.close()


def learner_context(config: Config) -> RewardContext:
    """The context of a learner's rewards. They only advance their states, so a solver refuses to answer."""
    return reward_context(config, _refuse if config.questions.solver else None)


def _refuse(group: RolloutGroup, statements: Sequence[str]) -> list[tuple[Completion, ...]]:
    raise RewardError("next_state must work without the solver: reward workers alone may ask it.")


def reward_context(config: Config, solve: Solve | None = None) -> RewardContext:
    """The context that is passed to a job's reward classes."""

    def training_problems() -> ProblemTable:
        return load_table(config.data, "train", data_cache(config))

    return RewardContext(config, training_problems, solve)
