"""Held-out accuracy of a run, by level: what its evaluations measured, how it changed, and both as tables."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.reports import page
from pipeline.reports.statistics import wilson_interval
from pipeline.runs.records import Row, read_evaluations

if TYPE_CHECKING:
    from rich.table import Table

ACCURACY_KEYS = {"tagged": "accuracy_tagged", "last_number": "accuracy_last_number", "answer": "answer_accuracy"}
"""Each measure of correctness, and its key in ``eval/<name>.json``."""
MEASURE_TITLES = {
    "tagged": "Tagged: the answer is correct and marked as the prompt asks for",
    "last_number": "Last number: the last number of the completion is correct, marked or not",
    "answer": "Answer: the verifier accepts the completion as a whole",
}
ACCURACY_NOTE = (
    "Below each share: its 95 % Wilson interval, and the change in points from the previous evaluation if that used "
    "the same number of problems."
)


def accuracy_table(run_dir: str | Path) -> "Table":
    """For a terminal: accuracy by level, before and after each stage, as ``tagged (last number)``."""
    from rich.table import Table
    from rich.text import Text

    evaluations = read_evaluations(run_dir)
    table = Table(title="held-out accuracy: tagged (last number)")
    table.add_column("level")
    for evaluation in evaluations:
        table.add_column(Text(evaluation["name"]), justify="right", no_wrap=True)
    for level in [*_levels(evaluations), "overall"]:
        if level == "overall":
            table.add_section()
        results = (_result(evaluation, level) for evaluation in evaluations)
        cells = [f"{r['accuracy_tagged']:.1%} ({r['accuracy_last_number']:.1%})" if r else "-" for r in results]
        table.add_row(Text(level), *cells)
    return table


def with_intervals(evaluation: Row) -> Row:
    """The evaluation with a 95 % interval beside each accuracy, as ``<key>_interval``."""

    def extend(result: Row) -> Row:
        spans = {
            f"{key}_interval": wilson_interval(result[key], result["num_problems"])
            for key in ACCURACY_KEYS.values()
            if key in result
        }
        return {**result, **spans}

    levels = {level: extend(result) for level, result in evaluation["levels"].items()}
    return {**evaluation, "levels": levels, "overall": extend(evaluation["overall"])}


def accuracy_change(before: Row, after: Row) -> Row:
    """Later accuracy minus earlier, for levels on which both evaluations have the same number of problems."""
    changes = {
        level: {measure: new[key] - old[key] for measure, key in ACCURACY_KEYS.items() if key in new and key in old}
        for level in [*_levels([after]), "overall"]
        if (new := _result(after, level)) and (old := _comparable(_result(before, level), new))
    }
    overall = changes.pop("overall", {})
    return {"from": before["name"], "to": after["name"], "levels": changes, "overall": overall}


class AccuracyTable(NamedTuple):
    """One measure, with intervals and changes."""

    title: str
    head: list[str]
    lines: list[list[Any]]
    """Cells as ``page.table`` takes them."""


def accuracy_tables(evaluations: list[Row]) -> list[AccuracyTable]:
    """A table per measure that all evaluations have. The first is the one to judge by.

    Args:
        evaluations: as returned by ``with_intervals``.
    """
    return [
        _measure_table(measure, key, evaluations)
        for measure, key in ACCURACY_KEYS.items()
        if evaluations and all(key in evaluation["overall"] for evaluation in evaluations)
    ]


def accuracy_section(evaluations: list[Row]) -> str:
    """HTML of ``accuracy_tables``, all but the first folded. Empty without evaluations."""
    if not (tables := accuracy_tables(evaluations)):
        return ""
    first, *others = (page.table(table.head, table.lines, "totals") for table in tables)
    folded = (page.details(table.title, html) for table, html in zip(tables[1:], others, strict=True))
    return f"<p><b>{page.text(tables[0].title)}</b></p>{first}{page.note(ACCURACY_NOTE)}{''.join(folded)}"


def _measure_table(measure: str, key: str, evaluations: list[Row]) -> AccuracyTable:
    head = ["level", "problems", *(e["name"] for e in evaluations), "first → last"]
    lines = []
    for level in [*_levels(evaluations), "overall"]:
        results = [_result(evaluation, level) for evaluation in evaluations]
        cells = [_cell(key, result, before) for before, result in pairwise([None, *results])]
        first, last = _comparable(results[0], results[-1]), results[-1]
        change = _points(last[key] - first[key]) if first and last and len(results) > 1 else "-"
        num_problems = ", ".join(dict.fromkeys(str(result["num_problems"]) for result in results if result))
        lines.append([level, num_problems, *cells, change])
    return AccuracyTable(MEASURE_TITLES[measure], head, lines)


def _cell(key: str, result: Row | None, before: Row | None) -> str | tuple[str, str]:
    if not result:
        return "-"
    low, high = result[f"{key}_interval"]
    before = _comparable(before, result)
    change = f" · {_points(result[key] - before[key])}" if before else ""
    return f"{result[key]:.1%}", f"{low * 100:.0f}–{high * 100:.0f} %{change}"


def _points(change: float) -> str:
    return f"{change * 100:+.1f}"


def _levels(evaluations: list[Row]) -> list[str]:
    return list(dict.fromkeys(level for evaluation in evaluations for level in evaluation["levels"]))


def _result(evaluation: Row, level: str) -> Row | None:
    result: Row | None = evaluation["levels"].get(level) if level != "overall" else evaluation["overall"]
    return result


def _comparable(before: Row | None, after: Row | None) -> Row | None:
    """The earlier result if both have the same number of problems: the last evaluation of a run may use more."""
    return before if before and after and before["num_problems"] == after["num_problems"] else None
