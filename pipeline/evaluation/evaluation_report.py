"""Of an evaluation: ``summary.json`` and the parquet file for programs, a table, a plot, ``report.html`` for people."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.errors import CheckpointError
from pipeline.evaluation.browser import browser_page
from pipeline.evaluation.record import read_record
from pipeline.evaluation.results import NAME as RESULTS
from pipeline.evaluation.results import ResultsFile
from pipeline.evaluation.scoring import NUMERIC_TOLERANCE, OUTCOMES, SCORES
from pipeline.evaluation.summary import summarize
from pipeline.files import write_atomic, write_json
from pipeline.reports import page
from pipeline.reports.drawing import BLUE, COLORS, GREEN, GREY, INK, ORANGE, PURPLE, RED, STYLE, save
from pipeline.runs.records import read_config

if TYPE_CHECKING:
    from rich.table import Table

MAX_ROWS_SHOWN = 20_000
"""In report.html; the rest is in eval_results.jsonl."""
_OUTCOME_COLORS = dict(zip(OUTCOMES, (GREEN, RED, ORANGE, PURPLE, BLUE, GREY), strict=True))
Result = Mapping[str, Any]


def write_evaluation_report(directory: Path, output_dir: str | Path | None = None) -> Path:
    """Write all of them, also of an evaluation that is not finished.

    Args:
        output_dir: where to write. None: the evaluation's directory.

    Returns:
        The path of ``report.html``.

    Raises:
        CheckpointError: there is nothing to report on yet, or no place to write.
    """
    output_dir = Path(output_dir or directory)
    record, results = read_record(directory), ResultsFile(directory)
    rows = results.light_rows()
    if not rows:
        raise CheckpointError(f"evaluation {directory} has no results yet: nothing to report.")
    summary = {"evaluation": directory.resolve().name, **summarize(rows), "record": record, "versions": page.versions()}
    with page.writing_to(output_dir, "Make room, or write it elsewhere: jobs/report.py DIR --output-dir."):
        output_dir.mkdir(parents=True, exist_ok=True)
        results.write_parquet(output_dir)
        write_json(output_dir / "summary.json", summary)
        plots = _draw(summary["results"], output_dir / "plots")
        html = browser_page(
            summary["evaluation"],
            _headline(summary),
            _sections(summary, plots, read_config(directory)),
            list(_shown(results, len(summary["results"]))),
        )
        write_atomic(output_dir / "report.html", html.encode())
    return output_dir / "report.html"


def _shown(results: ResultsFile, num_groups: int) -> Iterator[dict[str, Any]]:
    """The first rows of every model and data set, the same number of each."""
    seen: Counter[tuple[str, str]] = Counter()
    for row in results.rows():
        seen[row["model"], row["dataset"]] += 1
        if seen[row["model"], row["dataset"]] <= MAX_ROWS_SHOWN // num_groups:
            yield row


def read_summary(directory: Path) -> dict[str, Any]:
    """Raises CheckpointError when the evaluation has none yet."""
    try:
        return json.loads((directory / "summary.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory} must be a finished evaluation, with summary.json: {error}.") from None


def results_table(summary: Result) -> "Table":
    """One line per model and data set."""
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
        cells += [_best_k(result, name) for name in ("pass_at_k", "maj_at_k")] if sampled else []
        cells.append(f"{_truncated_frac(result):.1%}")
        table.add_row(Text(result["model"]), Text(result["dataset"]), str(result["num_problems"]), *cells)
    return table


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.2%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def _best_k(result: Result, name: str) -> str:
    """Of the largest k."""
    k, estimate = list(result[name].items())[-1]
    return f"{estimate['value']:.1%} (k={k})"


def _truncated_frac(result: Result) -> float:
    return result["outcomes"]["truncated"] / sum(result["outcomes"].values())


# The page


def _headline(summary: Result) -> str:
    results, record = summary["results"], summary["record"]
    asked = len(record["models"]) * sum(data["num_problems"] for data in record["datasets"])
    answered = sum(result["num_problems"] for result in results)
    facts = [
        f"unfinished: {answered:,} of {asked:,} problems answered" if answered < asked else "",
        f"{len(record['models'])} model{'s' * (len(record['models']) > 1)}",
        f"{sum(result['num_tokens'] for result in results):,} tokens written",
        f"{page.duration(sum(result['seconds'] for result in results))} of engine time",
    ]
    cards = [
        (f"{result['model']} on {result['dataset']}, answer accuracy", f"{result['answer_accuracy']:.1%}")
        for result in results[:8]
    ]
    return page.headline(facts, cards)


def _sections(summary: Result, plots: Sequence[Path], config: Mapping[str, Any]) -> dict[str, str]:
    results, record = summary["results"], summary["record"]
    limit = MAX_ROWS_SHOWN // len(results)
    left_out = f"Of every model and data set the first {limit:,} completions are on this page: all are in {RESULTS}."
    is_cut = any(sum(result["outcomes"].values()) > limit for result in results)
    return {
        "Scores": _scores(results),
        "Which is better": "".join(page.note(c["sentence"]) for c in summary["comparisons"]),
        "Plots": "".join(map(page.image, plots)),
        "Outcomes": page.table(
            ["model, data set", *OUTCOMES],
            [[_name(result), *result["outcomes"].values()] for result in results],
        ),
        "By kind of problem": "".join(map(_breakdown, results)),
        "Data sets and prompts": _asked(record),
        "In the training data": _guard(results, record),
        "Configuration": page.configuration(config),
        "Versions": page.table(["package", "version"], summary["versions"].items(), "plain"),
        "Rows left out": page.note(left_out) if is_cut else "",
    }


def _scores(results: Sequence[Result]) -> str:
    sampled = any(result["num_samples"] > 1 for result in results)
    head = ["model, data set", "problems", "answer accuracy", *SCORES]
    lines = []
    for result in results:
        estimates = [{"value": result["answer_accuracy"], "interval": result["answer_accuracy_interval"]}]
        estimates += [result[name] for name in SCORES]
        if sampled:
            estimates += [*result["pass_at_k"].values(), *result["maj_at_k"].values()]
        lines.append([_name(result), result["num_problems"], *map(_cell, estimates)])
    if sampled:
        first = results[0]
        head += [f"pass@{k}" for k in first["pass_at_k"]] + [f"maj@{k}" for k in first["maj_at_k"]]
    explained = (
        "Answer accuracy is the verifier's verdict. Strict: the same text; symbolic: the same value by SymPy; numeric: "
        f"within {NUMERIC_TOLERANCE:g} of it. Each is computed on its own. Below each: 95 % interval."
    )
    return page.table(head, lines) + page.note(explained)


def _cell(estimate: Result) -> tuple[str, str]:
    low, high = estimate["interval"]
    return f"{estimate['value']:.1%}", f"{low:.1%} to {high:.1%}"


def _name(result: Result) -> tuple[str, str]:
    return result["model"], result["dataset"]


def _breakdown(result: Result) -> str:
    parts = []
    for tag, values in result["by"].items():
        lines = [
            [
                value,
                part.get("num_problems", part.get("num_completions")),
                f"{part['answer_accuracy']:.1%}",
                _span(part),
            ]
            for value, part in values.items()
        ]
        unit = "completions" if tag == "completion_length" else "problems"
        title = "completion length, tokens" if tag == "completion_length" else tag
        parts.append(page.table([title, unit, "answer accuracy", "95 % interval"], lines))
    return page.details(f"{result['model']} on {result['dataset']}", "".join(parts))


def _span(part: Result) -> str:
    interval = part.get("answer_accuracy_interval")
    return f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else ""


def _asked(record: Result) -> str:
    head = [
        "data set",
        "asked",
        "rows",
        "no answer",
        "not comparable",
        "filtered",
        "in training data",
        "shots",
        "licence",
    ]
    keys = ["name", "num_problems", "num_rows", "num_without_answer", "num_unscorable", "num_filtered"]
    keys += ["num_seen_left_out", "num_shots", "licence"]
    lines = [["-" if data[key] is None else data[key] for key in keys] for data in record["datasets"]]
    prompts = "".join(
        page.details(
            f"{prompt['model']} on {prompt['dataset']}: {prompt['style']} prompt",
            page.pre(prompt["template"] if prompt["style"] == "plain" else f"system: {prompt['system_prompt']}")
            + page.note(f"ends at: {', '.join(map(repr, prompt['stop'])) or 'nothing but the end of turn'}"),
        )
        for prompt in record["prompts"]
    )
    return page.table(head, lines) + prompts


def _guard(results: Sequence[Result], record: Result) -> str:
    notes = {model["label"]: model["training_data"] for model in record["models"]}
    lines = [
        [
            _name(r),
            r["num_in_training_data"],
            f"{(r['not_in_training_data'] or r)['answer_accuracy']:.1%}",
            notes[r["model"]],
        ]
        for r in results
    ]
    return page.table(["model, data set", "problems in it", "accuracy without them", "looked through"], lines)


# Plots


def _draw(results: Sequence[Result], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.6 + 0.5 * len(results)), layout="constrained")
        accuracy, outcomes = figure.subplots(1, 2, sharey=True)
        _draw_accuracy(accuracy, results)
        _draw_outcomes(outcomes, results)
        return [save(figure, folder / "evaluation.png", 150)]


def _draw_accuracy(axes: Axes, results: Sequence[Result]) -> None:
    places = range(len(results))
    values = [result["answer_accuracy"] for result in results]
    spans = [result["answer_accuracy_interval"] for result in results]
    errors = [[max(v - low, 0) for v, (low, _) in zip(values, spans, strict=True)]]
    errors.append([max(high - v, 0) for v, (_, high) in zip(values, spans, strict=True)])
    colors = {model: COLORS[i % len(COLORS)] for i, model in enumerate(dict.fromkeys(r["model"] for r in results))}
    axes.barh(
        places, values, color=[colors[r["model"]] for r in results], xerr=errors, error_kw={"ecolor": INK, "lw": 0.9}
    )
    axes.set_yticks(places, [f"{result['model']}\n{result['dataset']}" for result in results])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("Answer accuracy, 95 % interval")


def _draw_outcomes(axes: Axes, results: Sequence[Result]) -> None:
    left = [0.0] * len(results)
    for outcome in OUTCOMES:
        shares = [result["outcomes"][outcome] / sum(result["outcomes"].values()) for result in results]
        if any(shares):
            label = outcome.replace("_", " ")
            axes.barh(range(len(results)), shares, left=left, color=_OUTCOME_COLORS[outcome], label=label)
            left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("Outcomes of completions")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)
