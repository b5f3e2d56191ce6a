"""Greedy accuracy on held-out problems while a run trains: a row per problem, and its summary by level."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any


def accuracy_by_level(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summary of evaluation rows: ``levels`` by name, and ``overall``.

    Args:
        rows: with level, outcome, tagged and last_number (bool), num_tokens, truncated (bool).
    """
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
