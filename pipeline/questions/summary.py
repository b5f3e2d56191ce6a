"""Measures of written problems in an evaluation, with 95 % intervals."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from pipeline.questions.computed import compute
from pipeline.questions.similarity import cosine, phrases, skeleton
from pipeline.reports import page
from pipeline.reports.statistics import wilson_interval

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
Measure = dict[str, float]
"""``mean``, ``low``, ``high``, and ``num``: the number of values."""
TITLES = {
    "well_formed": "well formed",
    "computed": "can be computed",
    "right_key": "right key",
    "accepted": "right key and the difficulty asked for",
    "operations": "operations",
    "largest_number": "largest number",
    "novelty": "novelty",
    "novelty_computed": "novelty of what can be computed",
    "diversity": "diversity",
    "diversity_computed": "diversity of what can be computed",
    "quality": "quality",
}
SHARES = ("well_formed", "computed", "right_key", "accepted")


def writing_summary(rows: Sequence[Row]) -> dict[str, Measure]:
    """Each measure of TITLES.

    Shares and quality are over all rows, novelty over well-formed ones. A key counts as right only if it can be
    computed; ``accepted`` also counts others where ``questions.must_compute`` is off, so it can be larger. Operations
    and numbers are over all statements that can be computed, whatever their key. Diversity is the mean distance between
    two well-formed statements of a level, with names, things and numbers masked.
    """
    statements = [row for row in rows if row["statement"]]
    computations = {row["statement"]: compute(row["statement"]) for row in statements}
    readable = [row for row in statements if computations[row["statement"]]]
    computed = [found for row in readable if (found := computations[row["statement"]])]
    checked = [row for row in rows if "checked" in row["parts"]]
    is_right = [bool(computations.get(row["statement"])) and row["parts"]["checked"] > 0 for row in checked]
    return {
        "well_formed": _share([bool(row["statement"]) for row in rows]),
        "computed": _share([bool(computations.get(row["statement"])) for row in rows]),
        "right_key": _share(is_right),
        "accepted": _share([row["outcome"] == "correct" for row in rows]),
        "operations": _mean([found.num_operations for found in computed]),
        "largest_number": _mean([found.largest for found in computed]),
        "novelty": _mean([row["parts"]["novel"] for row in statements if "novel" in row["parts"]]),
        "novelty_computed": _mean([row["parts"]["novel"] for row in readable if "novel" in row["parts"]]),
        "diversity": _diversity(statements),
        "diversity_computed": _diversity(readable),
        "quality": _mean([row["quality"] for row in rows]),
    }


def writing_section(evaluations: Sequence[Row]) -> str:
    """The measures of each evaluation as HTML; empty if nothing was written."""
    written = [evaluation for evaluation in evaluations if "writing" in evaluation]
    if not written:
        return ""
    lines = [[title, *(_of_evaluation(name, evaluation) for evaluation in written)] for name, title in TITLES.items()]
    counts = ", ".join(f"{each['name']} {each['writing']['well_formed']['num']:.0f}" for each in written)
    note = f"Means with 95 % intervals. Problems written: {counts}. docs/questions.md says what each measure is."
    return page.table(["measure", *(evaluation["name"] for evaluation in written)], lines) + page.note(note)


def writing_table(evaluations: Sequence[Row]) -> "Table":
    """The same measures for a terminal."""
    from rich.table import Table
    from rich.text import Text

    written = [evaluation for evaluation in evaluations if "writing" in evaluation]
    table = Table("measure", title="written problems")
    for evaluation in written:
        table.add_column(Text(evaluation["name"]))
    for name, title in TITLES.items():
        table.add_row(title, *(Text(_of_evaluation(name, evaluation)) for evaluation in written))
    return table


def _of_evaluation(name: str, evaluation: Row) -> str:
    """One measure as text; a dash if the evaluation was made by a version that did not have it."""
    return shown(name, evaluation["writing"].get(name, {"num": 0}))


def shown(name: str, measure: Measure, sign: str = "") -> str:
    """The mean and its interval; ``sign`` is ``+`` for a change."""
    if not measure["num"]:
        return "-"
    figure = sign + (".1%" if name in SHARES else ".2f")
    mean, low, high = (format(measure[key], figure) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _share(values: Sequence[bool]) -> Measure:
    mean = fmean(values) if values else 0.0
    low, high = wilson_interval(mean, len(values))
    return {"mean": mean, "low": low, "high": high, "num": len(values)}


def _mean(values: Sequence[float], scale: float = 1.0) -> Measure:
    """
    Args:
        scale: factor of the standard error.
    """
    mean = fmean(values) if values else 0.0
    half = scale * 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half, "num": len(values)}


def _diversity(rows: Sequence[Row]) -> Measure:
    """The mean distance over all pairs of statements of a level.

    It is a U-statistic of order 2: its standard error is twice that of the mean of the per-statement distances.
    Hoeffding, 1948.
    """
    by_level: dict[str | None, list[str]] = {}
    for row in rows:
        by_level.setdefault(row["level"], []).append(row["statement"])
    return _mean([distance for texts in by_level.values() for distance in _distances(texts)], scale=2.0)


def _distances(statements: Sequence[str]) -> list[float]:
    """The mean distance from each statement to the others; empty for a single one."""
    if len(statements) < 2:
        return []
    skeletons = [phrases(skeleton(statement)) for statement in statements]
    similar = [[cosine(first, second) for second in skeletons] for first in skeletons]
    return [1 - (sum(row) - row[index]) / (len(row) - 1) for index, row in enumerate(similar)]
