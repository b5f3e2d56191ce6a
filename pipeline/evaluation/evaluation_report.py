"""The report of an evaluation: ``summary.json`` and parquet for programs; a table, a plot and a page for people."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.errors import CheckpointError
from pipeline.evaluation.evaluation_page import MAX_ROWS_SHOWN, evaluation_page
from pipeline.evaluation.plots import draw_evaluation
from pipeline.evaluation.record import read_record
from pipeline.evaluation.results import ResultsFile
from pipeline.evaluation.scoring import SCORES
from pipeline.evaluation.summary import Result, summarize
from pipeline.files import write_atomic, write_json
from pipeline.reports import page
from pipeline.runs.records import read_config

if TYPE_CHECKING:
    from rich.table import Table


def write_evaluation_report(directory: Path, output_dir: str | Path | None = None) -> Path:
    """Write all files of the report. The evaluation may be unfinished.

    Args:
        output_dir: where to write. None: the evaluation's directory.

    Returns:
        The path of ``report.html``.

    Raises:
        CheckpointError: there is nothing to report yet, or the output cannot be written.
    """
    output_dir = Path(output_dir or directory)
    record, results = read_record(directory), ResultsFile(directory)
    rows = results.light_rows()
    if not rows:
        raise CheckpointError(f"evaluation {directory} has no results yet: nothing to report.")
    summary = {"evaluation": directory.resolve().name, **summarize(rows), "record": record, "versions": page.versions()}
    with page.writing_to(output_dir, "Free some space, or write elsewhere: jobs/report.py DIR --output-dir."):
        output_dir.mkdir(parents=True, exist_ok=True)
        results.write_parquet(output_dir)
        write_json(output_dir / "summary.json", summary)
        plots = [draw_evaluation(summary["results"], output_dir / "plots")]
        shown = list(_rows_shown(results, len(summary["results"])))
        html = evaluation_page(summary, plots, read_config(directory), shown)
        write_atomic(output_dir / "report.html", html.encode())
    return output_dir / "report.html"


def _rows_shown(results: ResultsFile, num_groups: int) -> Iterator[dict[str, Any]]:
    """The first rows of each model and data set, the same number for each."""
    seen: Counter[tuple[str, str]] = Counter()
    for row in results.rows():
        seen[row["model"], row["dataset"]] += 1
        if seen[row["model"], row["dataset"]] <= MAX_ROWS_SHOWN // num_groups:
            yield row


def read_summary(directory: Path) -> dict[str, Any]:
    """Raises CheckpointError if the evaluation has no summary yet."""
    try:
        return cast(dict[str, Any], json.loads((directory / "summary.json").read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory} must be a finished evaluation, with summary.json: {error}.") from None


def results_table(summary: Mapping[str, Any]) -> "Table":
    """For a terminal: one line per model and data set."""
    from rich.table import Table
    from rich.text import Text

    results = summary["results"]
    sampled = any(result["num_samples"] > 1 for result in results)
    table = Table(title="share of problems answered correctly, with 95 % intervals")
    for name in ("model", "data set", "problems"):
        table.add_column(name, overflow="fold")
    for name in ("answer accuracy", *SCORES, *(("pass@k", "maj@k") if sampled else ()), "cut off"):
        table.add_column(name, justify="right")
    for result in results:
        cells = [_with_interval(result["answer_accuracy"], result["answer_accuracy_interval"])]
        cells += [f"{result[name]['value']:.1%}" for name in SCORES]
        cells += [_at_largest_k(result, name) for name in ("pass_at_k", "maj_at_k")] if sampled else []
        cells.append(f"{_truncated_frac(result):.1%}")
        table.add_row(Text(result["model"]), Text(result["dataset"]), str(result["num_problems"]), *cells)
    return table


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.2%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def _at_largest_k(result: Result, name: str) -> str:
    k, estimate = list(result[name].items())[-1]
    return f"{estimate['value']:.1%} (k={k})"


def _truncated_frac(result: Result) -> float:
    outcomes: Mapping[str, int] = result["outcomes"]
    return outcomes["truncated"] / sum(outcomes.values())
