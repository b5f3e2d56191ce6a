"""Compares models on the problems that both answered."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from pipeline.reports.statistics import Paired, compare_paired

Row = Mapping[str, Any]
"""One row of eval_results.jsonl, with or without its texts."""


def by_problem(rows: Iterable[Row]) -> dict[str, list[Row]]:
    problems: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        problems[row["problem_id"]].append(row)
    return dict(problems)


def share_correct(rows: Sequence[Row], key: str) -> float:
    """Share of completions that are correct by ``outcome`` or by one of the scores."""
    return fmean(row["outcome"] == "correct" if key == "outcome" else bool(row[key]) for row in rows)


def compare_models(groups: Mapping[tuple[str, str], Sequence[Row]]) -> list[Paired]:
    """Each model against the first that answered the data set, on the problems that both answered.

    Args:
        groups: rows by (model, data set).
    """
    models_of: dict[str, list[str]] = defaultdict(list)
    for model, dataset in groups:
        models_of[dataset].append(model)
    num_comparisons = sum(len(models) - 1 for models in models_of.values())
    comparisons = []
    for dataset, (first, *others) in models_of.items():
        suffix = f" on {dataset}" if len(models_of) > 1 else ""
        for other in others:
            a, b = by_problem(groups[first, dataset]), by_problem(groups[other, dataset])
            shared = [problem for problem in a if problem in b]
            if shared:
                shares = [[share_correct(side[problem], "outcome") for problem in shared] for side in (a, b)]
                single = all(len(side[problem]) == 1 for side in (a, b) for problem in shared)
                names = first + suffix, other + suffix
                comparisons.append(compare_paired(*names, *shares, single=single, num_comparisons=num_comparisons))
    return comparisons


def comparison_entry(comparison: Paired) -> dict[str, Any]:
    """For summary.json: the fields, and the properties that follow from them."""
    return asdict(comparison) | {"difference": comparison.difference, "sentence": comparison.sentence}
