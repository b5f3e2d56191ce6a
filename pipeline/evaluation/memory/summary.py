"""Counts the rows of an evaluation: accuracy with intervals, by relation, recall of the router, use of the bank."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from pipeline.data.omcq import ChoiceQuestion
from pipeline.data.omcq.from_facts import frequency_prior
from pipeline.evaluation.comparison import comparison_entry
from pipeline.evaluation.memory.asking import Row
from pipeline.evaluation.memory.conditions import CONDITIONS
from pipeline.evaluation.memory.matching import COMPARISONS
from pipeline.models.memory.usage import BankUse
from pipeline.reports.statistics import compare_paired, wilson_interval

Summary = dict[str, Any]
HEADLINE = "contains"
"""The comparison that is fair to a model which was never shown how to answer."""


def summarize(
    rows: Sequence[Row], questions: Sequence[ChoiceQuestion], training: Sequence[ChoiceQuestion] = ()
) -> Summary:
    """Accuracy under every condition, with chance and prior beside it.

    Args:
        training: questions from which the most frequent object of each relation is known.
    """
    groups = by_condition(rows)
    of_relation: defaultdict[str, list[ChoiceQuestion]] = defaultdict(list)
    for question in questions:
        of_relation[question.relation].append(question)
    return {
        "num_questions": len(questions),
        "chance": _chance(questions),
        "most_frequent_object": _prior(questions, training),
        "conditions": {name: _condition(name, group) for name, group in groups.items()},
        "comparisons": _comparisons(groups),
        "relations": {
            relation: {
                "label": asked[0].relation_label,
                "num_questions": len(asked),
                "chance": _chance(asked),
                "most_frequent_object": _prior(asked, training),
            }
            for relation, asked in sorted(of_relation.items())
        },
    }


def by_condition(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["condition"]].append(row)
    return dict(groups)


def _chance(questions: Sequence[ChoiceQuestion]) -> float:
    return fmean(1 / len(question.options) for question in questions)


def _prior(questions: Sequence[ChoiceQuestion], training: Sequence[ChoiceQuestion]) -> float | None:
    return frequency_prior(training, questions) if training else None


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """A share with its count and its 95 % interval."""
    frac = sum(hits) / len(hits)
    return {"num_right": sum(hits), "num": len(hits), "value": frac, "interval": list(wilson_interval(frac, len(hits)))}


def _condition(name: str, rows: Sequence[Row]) -> Summary:
    of_relation: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_relation[row["relation"]].append(row)
    return {
        **_shares(rows),
        "by_relation": {relation: _shares(group) for relation, group in sorted(of_relation.items())},
        **({"recall": _recall(rows)} if CONDITIONS[name].reads == "found" and "chosen" in rows[0] else {}),
    }


def _shares(rows: Sequence[Row]) -> Summary:
    names = [*COMPARISONS, *(f"keeps_{name}" for name in COMPARISONS if f"keeps_{name}" in rows[0])]
    shares = {name: share([row[name] for row in rows]) for name in names}
    return shares | ({"ranked": share([row["ranked"] == row["right"] for row in rows])} if "ranked" in rows[0] else {})


def _recall(rows: Sequence[Row]) -> Summary:
    """How often the right entry was found. Chosen entries are in order: best first, or most often chosen first."""
    return {
        "first": share([row["chosen"][:1] == [row["entry"]] for row in rows]),
        "chosen": share([row["entry"] in row["chosen"] for row in rows]),
        "candidates": share([row["right_place"] is not None for row in rows]),
    }


def _comparisons(groups: Mapping[str, Sequence[Row]]) -> list[Summary]:
    """Each condition against the first."""
    first, *others = groups
    values = {name: [float(row[HEADLINE]) for row in rows] for name, rows in groups.items()}
    return [
        comparison_entry(
            compare_paired(first, other, values[first], values[other], single=True, num_comparisons=len(others))
        )
        for other in others
    ]


def use_of_bank(counts: Mapping[str, Tensor]) -> Summary:
    """Metrics of the choices under each condition, and the entries that were chosen most often."""
    uses = {name: BankUse(count) for name, count in counts.items()}
    return {name: use.metrics() | {"hottest": use.hottest()} for name, use in uses.items()}


def metrics_row(summary: Summary) -> dict[str, float]:
    """The main numbers, as a row of metrics."""
    accuracy = {
        f"omcq/{name}_{key}": found[key]["value"]
        for name, found in summary["conditions"].items()
        for key in (*COMPARISONS, "ranked")
        if key in found
    }
    use = summary.get("bank", {}).get("memory", {})
    return accuracy | {name: value for name, value in use.items() if name.startswith("bank/")}
