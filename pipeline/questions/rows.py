"""One row per written problem, as stages, evaluations and the generation job record it."""

from collections.abc import Sequence
from typing import Any

from pipeline.config import RewardTerm
from pipeline.data.writing import written_text
from pipeline.questions.written import Malformed, WrittenProblem, read_written
from pipeline.rewards.totals import quality
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WritingTask

Row = dict[str, Any]


def written_rows(group: RolloutGroup, terms: Sequence[RewardTerm], model: str, seeds: Sequence[int]) -> list[Row]:
    """A row for each completion of a scored group.

    Args:
        model: the model that wrote it.
        seeds: sampling seed of each completion.
    """
    scored = zip(group.completions, group.rewards, seeds, strict=True)
    return [
        {**written_row(group.problem, completion, reward, terms), "model": model, "seed": seed}
        for completion, reward, seed in scored
    ]


def written_row(problem: Problem, completion: Completion, reward: RewardBreakdown, terms: Sequence[RewardTerm]) -> Row:
    """The task, the written problem and its scores. ``detail`` says why it is malformed."""
    read = read_written(completion.text)
    written = WrittenProblem("", "", "") if isinstance(read, Malformed) else read
    task = problem.writing or WritingTask("new")
    return {
        "id": problem.id,
        "kind": task.kind,
        "topic": problem.type,
        "level": problem.level,
        "statement": written.statement,
        "solution": written.solution,
        "answer": written.answer,
        "original": task.original,
        "original_answer": task.original_answer,
        "completion": completion.text,
        "parts": dict(reward.parts),
        "quality": quality(reward.parts, terms),
        "outcome": reward.outcome,
        "num_tokens": len(completion.token_ids),
        "truncated": completion.stop_reason == "length",
        "prompt": [dict(message) for message in problem.prompt],
        "detail": read.reason if isinstance(read, Malformed) else "",
    }


def written_problem(row: Row) -> Problem:
    """A kept row as an SFT problem: its task, with the written problem as the example."""
    return Problem(
        id=f"{row['id']}-written",
        prompt=tuple(row["prompt"]),
        gold=row["answer"],
        solution=written_text(row["statement"], row["solution"], row["answer"]),
        level=row["level"],
        type=row["topic"],
        source="written",
        writing=WritingTask(row["kind"], row["original"], row["original_answer"]),
    )
