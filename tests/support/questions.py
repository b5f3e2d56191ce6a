"""Written problems, groups of them, and what their rewards are made with."""

from collections.abc import Sequence
from typing import Any

from pipeline.config import validate_config
from pipeline.rewards.registry import RewardContext, make_reward
from pipeline.types import Completion, Problem, RolloutGroup, WeightId, WritingKind, WritingTask

NO_VERDICTS = ()
"""The rewards of written problems read the texts, not the verdicts on them."""


def completion_text(statement: str, solution: str, answer: str) -> str:
    return f"<problem>\n{statement}\n</problem>\n<solution>\n{solution}\n</solution>\n<answer>{answer}</answer>"


def ordinary(statement: str) -> Problem:
    return Problem(id=statement, prompt=({"role": "user", "content": statement},), gold="1")


def writing_group(
    *texts: str,
    level: str = "1",
    topic: str | None = None,
    kind: WritingKind = "new",
    original: str | None = None,
    original_answer: str | None = None,
) -> RolloutGroup:
    problem = Problem(
        id="p0",
        prompt=({"role": "user", "content": "Write a problem."},),
        gold="",
        level=level,
        type=topic,
        writing=WritingTask(kind, original, original_answer),
    )
    completions = tuple(Completion.of((1, 2), (-0.5, -0.5), text, "stop") for text in texts)
    return RolloutGroup(problem, (1,), completions, WeightId(0, 0))


def reward_context(training: Sequence[Problem] = (), solve: Any = None, **questions: Any) -> RewardContext:
    config = validate_config({"stages": [{"name": "write", "kind": "grpo"}], "questions": questions})
    return RewardContext(config, lambda: training, solve)


def reward_values(name: str, group: RolloutGroup, context: RewardContext) -> list[float]:
    return list(make_reward(name, context)(group, NO_VERDICTS))
