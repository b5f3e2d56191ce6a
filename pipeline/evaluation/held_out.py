"""Greedy accuracy on held-out problems while a run trains: one row per problem, summarized by level."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from pipeline.types import Completion, Problem
from pipeline.verifier import extract, grade, last_number


def held_out_row(problem: Problem, completion: Completion) -> dict[str, Any]:
    """Grade one completion, as one row of ``samples/eval_<name>.jsonl``.

    Returns:
        ``tagged`` is True for a correct answer inside the marks that the prompt asks for, ``last_number`` where the
        last number of the completion is correct, and ``outcome`` is the verifier's for the completion as a whole.
    """
    verdict = grade(completion.text, problem.gold)
    number = last_number(completion.text)
    return {
        "problem_id": problem.id,
        "level": problem.level or "all",
        "question": problem.question,
        "gold": problem.gold,
        "completion": completion.text,
        "outcome": verdict.outcome,
        "tagged": verdict.outcome == "correct" and _is_marked(problem, completion.text),
        "last_number": number is not None and grade(f"<answer>{number}</answer>", problem.gold).outcome == "correct",
        "num_tokens": len(completion.token_ids),
        "truncated": completion.stop_reason == "length",
    }


def writing_row(row: dict[str, Any]) -> dict[str, Any]:
    """The fields by which a row of a written problem is summarized like the others.

    It is right if it is well formed, its answer holds, and it has the difficulty that was asked for.
    """
    return {
        "problem_id": row["id"],
        "level": row["level"] or "all",
        "question": row["prompt"][-1]["content"],
        "gold": "",
        "tagged": row["outcome"] == "correct",
        "last_number": False,
    }


def _is_marked(problem: Problem, text: str) -> bool:
    """A plain-text prompt asks for no tags: ``#### 5``, ``The answer is: 5`` and a box count as marks there."""
    if problem.prompt_text is not None:
        return extract(text, fallback=False) is not None
    return "</answer>" in text


def accuracy_by_level(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarize rows of ``held_out_row``: ``levels`` by name, and ``overall``."""
    names = sorted({row["level"] for row in rows})
    return {
        "levels": {name: _accuracy([row for row in rows if row["level"] == name]) for name in names},
        "overall": _accuracy(rows),
    }


def _accuracy(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {
        "num_problems": len(rows),
        "accuracy_tagged": fmean(row["tagged"] for row in rows),
        "answer_accuracy": fmean(row["outcome"] == "correct" for row in rows),
        "accuracy_last_number": fmean(row["last_number"] for row in rows),
        "completion_length_mean": fmean(row["num_tokens"] for row in rows),
        "truncated_frac": fmean(row["truncated"] for row in rows),
    }
