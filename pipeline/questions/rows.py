"""One row per written problem: the record of stages, evaluations and the generation job."""

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from pipeline.config import RewardTerm
from pipeline.data.writing import written_text
from pipeline.questions.computed import compute
from pipeline.questions.similarity import cosine, phrases, skeleton
from pipeline.questions.written import Malformed, read_written
from pipeline.rewards.totals import quality
from pipeline.types import Completion, Problem, RewardBreakdown, RolloutGroup, WritingTask

Row = dict[str, Any]


def written_rows(group: RolloutGroup, terms: Sequence[RewardTerm], model: str, seeds: Sequence[int]) -> list[Row]:
    """A row for each completion of a scored group.

    Args:
        model: who wrote it.
        seeds: sampling seed of each completion.
    """
    scored = zip(group.completions, group.rewards, seeds, strict=True)
    return [
        {**written_row(group.problem, completion, reward, terms), "model": model, "seed": seed}
        for completion, reward, seed in scored
    ]


def written_row(problem: Problem, completion: Completion, reward: RewardBreakdown, terms: Sequence[RewardTerm]) -> Row:
    """What was asked for, what was written, and its scores. ``detail`` says why it is malformed."""
    written = read_written(completion.text)
    is_malformed = isinstance(written, Malformed)
    task = problem.writing or WritingTask("new")
    return {
        "id": problem.id,
        "kind": task.kind,
        "topic": problem.type,
        "level": problem.level,
        "statement": "" if isinstance(written, Malformed) else written.statement,
        "solution": "" if isinstance(written, Malformed) else written.solution,
        "answer": "" if isinstance(written, Malformed) else written.answer,
        "original": task.original,
        "original_answer": task.original_answer,
        "completion": completion.text,
        "parts": dict(reward.parts),
        "quality": quality(reward.parts, terms),
        "outcome": reward.outcome,
        "num_tokens": len(completion.token_ids),
        "truncated": completion.stop_reason == "length",
        "prompt": [dict(message) for message in problem.prompt],
        "detail": written.reason if is_malformed and isinstance(written, Malformed) else "",
    }


def written_problem(row: Row) -> Problem:
    """The task that a kept row is an example of, for SFT."""
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


def writing_summary(rows: Sequence[Row]) -> dict[str, float]:
    """Shares and means over written problems. Those of numbers and operations are over statements that can be computed,
    and diversity is the mean distance between two well-formed statements of a level."""
    statements = [row["statement"] for row in rows if row["statement"]]
    computed = [found for statement in statements if (found := compute(statement))]
    names = rows[0]["parts"] if rows else ()
    means = {f"{name}_mean": fmean(row["parts"][name] for row in rows) for name in names}
    by_level: dict[str | None, list[str]] = {}
    for row in rows:
        if row["statement"]:
            by_level.setdefault(row["level"], []).append(row["statement"])
    distances = [mean_distance(texts) for texts in by_level.values() if len(texts) > 1]
    return {
        "num_written": len(rows),
        "accepted_frac": _mean([row["outcome"] == "correct" for row in rows]),
        "well_formed_frac": len(statements) / max(len(rows), 1),
        "computed_frac": len(computed) / max(len(rows), 1),
        "quality_mean": _mean([row["quality"] for row in rows]),
        "operations_mean": _mean([found.num_operations for found in computed]),
        "largest_number_mean": _mean([found.largest for found in computed]),
        "diversity": _mean(distances),
        **means,
    }


def mean_distance(statements: Sequence[str]) -> float:
    """1 minus the mean similarity of two statements, names, things and numbers masked."""
    skeletons = [phrases(skeleton(statement)) for statement in statements]
    return 1 - fmean(cosine(first, second) for first, second in combinations(skeletons, 2))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
