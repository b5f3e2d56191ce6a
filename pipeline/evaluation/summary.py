"""Summarizes the rows of an evaluation: accuracy, pass@k, maj@k and breakdowns, for each model on each data set."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from pipeline.data.selection import natural_order
from pipeline.evaluation.comparison import Row, by_problem, compare_models, comparison_entry, share_correct
from pipeline.evaluation.registry import TAGS
from pipeline.evaluation.scoring import OUTCOMES, SCORES
from pipeline.reports.statistics import bootstrap_interval, ks_up_to, majority_is_correct, pass_at_k, wilson_interval
from pipeline.verifier.normalize.quantity import read_quantity
from pipeline.verifier.normalize.spelling import clean, compact

Problems = Mapping[str, Sequence[Row]]
"""The rows of each problem, by its id."""
Result = Mapping[str, Any]
"""One model on one data set: an entry of ``results``."""
LENGTH_BINS = 4
_MAX_ANSWER_CHARS = 1000


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """``results``: one entry per model and data set, in order; ``comparisons``: each model against the first.

    Args:
        rows: of eval_results.jsonl; their texts are not needed.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["model"], row["dataset"]].append(row)
    results = [{"model": model, "dataset": dataset, **_result(part)} for (model, dataset), part in groups.items()]
    return {"results": results, "comparisons": [comparison_entry(c) for c in compare_models(groups)]}


def _result(rows: Sequence[Row]) -> dict[str, Any]:
    problems = by_problem(rows)
    num_samples = len(rows) // len(problems)
    seen = {row["problem_id"] for row in rows if row["in_training_data"]}
    unseen = [row for row in rows if row["problem_id"] not in seen]
    outcomes = Counter(row["outcome"] for row in rows)
    return {
        "num_samples": num_samples,
        **_accuracy(rows),
        **{name: _estimate(problems, name) for name in SCORES},
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "pass_at_k": _pass_at_k(problems, num_samples),
        "maj_at_k": _maj_at_k(problems, num_samples),
        "num_in_training_data": len(seen),
        "not_in_training_data": _accuracy(unseen) if seen and unseen else None,
        "by": _breakdowns(rows),
        "completion_length_mean": fmean(row["num_tokens"] for row in rows),
        "completion_length_median": median(row["num_tokens"] for row in rows),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
    }


def _accuracy(rows: Sequence[Row]) -> dict[str, Any]:
    """``num_problems``, ``answer_accuracy`` and its 95 % interval."""
    problems = by_problem(rows)
    estimate = _estimate(problems, "outcome")
    return {
        "num_problems": len(problems),
        "answer_accuracy": estimate["value"],
        "answer_accuracy_interval": estimate["interval"],
    }


def _estimate(problems: Problems, key: str) -> dict[str, Any]:
    """Mean over problems of the share of correct completions, with its 95 % interval.

    The interval is Wilson's for one completion per problem, otherwise a bootstrap.
    """
    shares = [share_correct(rows, key) for rows in problems.values()]
    single = all(len(rows) == 1 for rows in problems.values())
    value = fmean(shares) if shares else 0.0
    return {"value": value, "interval": wilson_interval(value, len(shares)) if single else bootstrap_interval(shares)}


def _pass_at_k(problems: Problems, num_samples: int) -> dict[str, Any]:
    correct = [sum(row["outcome"] == "correct" for row in rows) for rows in problems.values()]
    return {
        str(k): _over_problems([pass_at_k(num_samples, c, k) for c in correct], num_samples)
        for k in ks_up_to(num_samples)
    }


def _maj_at_k(problems: Problems, num_samples: int) -> dict[str, Any]:
    """Majority vote of the first k completions of each problem."""
    votes = [
        ([answer_key(row["answer"]) for row in rows], [row["outcome"] == "correct" for row in rows])
        for rows in problems.values()
    ]
    return {
        str(k): _over_problems([float(majority_is_correct(a[:k], c[:k])) for a, c in votes], num_samples)
        for k in ks_up_to(num_samples)
    }


def _over_problems(values: Sequence[float], num_samples: int) -> dict[str, Any]:
    interval = wilson_interval(fmean(values), len(values)) if num_samples == 1 else bootstrap_interval(values)
    return {"value": fmean(values), "interval": interval}


def answer_key(answer: str | None) -> str | None:
    """Equal keys for answers that are the same number, or the same text apart from spelling."""
    if answer is None or len(answer) > _MAX_ANSWER_CHARS:
        return answer
    tidy = clean(answer)
    quantity = read_quantity(tidy)
    return f"{quantity.value} {quantity.unit}" if quantity else compact(tidy)


def _breakdowns(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Accuracy by every tag with more than one value, and by the length of completions."""
    breakdowns = {}
    for tag in TAGS:
        values = {row[tag] for row in rows} - {None}
        if len(values) > 1:
            parts = {value: [row for row in rows if row[tag] == value] for value in sorted(values, key=natural_order)}
            breakdowns[tag] = {value: _accuracy(part) for value, part in parts.items()}
    return breakdowns | {"completion_length": _by_length(rows)}


def _by_length(rows: Sequence[Row]) -> dict[str, Any]:
    """Share of correct completions, by quartile of their length. Not a share of problems, so it has no interval."""
    lengths = np.array([row["num_tokens"] for row in rows])
    edges = sorted(
        {int(edge) for edge in np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1)[1:], method="higher")}
    )
    bins, low = {}, int(lengths.min())
    for high in edges:
        part = [row for row in rows if low <= row["num_tokens"] <= high]
        if part:
            correct = fmean(row["outcome"] == "correct" for row in part)
            bins[f"{low}-{high}"] = {"num_completions": len(part), "answer_accuracy": correct}
        low = high + 1
    return bins
