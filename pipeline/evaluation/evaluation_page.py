"""The page of an evaluation: scores, comparisons, breakdowns, and a browser over its completions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.evaluation.browser import browser_page
from pipeline.evaluation.results import RESULTS_FILE
from pipeline.evaluation.scoring import NUMERIC_TOLERANCE, OUTCOMES, SCORES
from pipeline.evaluation.summary import Result
from pipeline.reports import page

MAX_ROWS_SHOWN = 20_000
"""On the page; eval_results.jsonl has all rows."""
_ASKED_COLUMNS = {
    "name": "data set",
    "num_problems": "asked",
    "num_rows": "rows",
    "num_without_answer": "no answer",
    "num_unscorable": "not comparable",
    "num_filtered": "filtered",
    "num_seen_left_out": "in training data",
    "num_shots": "shots",
    "licence": "licence",
}


def evaluation_page(
    summary: Result, plots: Sequence[Path], config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    """HTML of ``report.html``.

    Args:
        summary: the content of ``summary.json``.
        config: the evaluation's settings, as plain JSON.
        rows: of eval_results.jsonl, at most MAX_ROWS_SHOWN.
    """
    return browser_page(summary["evaluation"], _headline(summary), _sections(summary, plots, config), rows)


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
    is_cut = any(sum(result["outcomes"].values()) > limit for result in results)
    cut = f"This page shows the first {limit:,} completions of every model and data set: {RESULTS_FILE} has them all."
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
        "In the training data": _overlap(results, record),
        "Configuration": page.configuration(config),
        "Versions": page.table(["package", "version"], summary["versions"].items(), "plain"),
        "Rows left out": page.note(cut) if is_cut else "",
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
        lines.append([_name(result), result["num_problems"], *map(_estimate, estimates)])
    if sampled:
        first = results[0]
        head += [f"pass@{k}" for k in first["pass_at_k"]] + [f"maj@{k}" for k in first["maj_at_k"]]
    note = (
        "Answer accuracy is the verifier's verdict. Strict: the same text; symbolic: the same value by SymPy; numeric: "
        f"within {NUMERIC_TOLERANCE:g} of it. Each is computed on its own. Below each: 95 % interval."
    )
    return page.table(head, lines) + page.note(note)


def _estimate(estimate: Result) -> tuple[str, str]:
    return f"{estimate['value']:.1%}", _interval(estimate["interval"])


def _interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else ""


def _name(result: Result) -> tuple[str, str]:
    return result["model"], result["dataset"]


def _breakdown(result: Result) -> str:
    tables = [_by_tag(tag, values) for tag, values in result["by"].items()]
    return page.details(f"{result['model']} on {result['dataset']}", "".join(tables))


def _by_tag(tag: str, values: Mapping[str, Result]) -> str:
    head = ["completion length, tokens", "completions"] if tag == "completion_length" else [tag, "problems"]
    lines = [
        [
            value,
            part.get("num_problems", part.get("num_completions")),
            f"{part['answer_accuracy']:.1%}",
            _interval(part.get("answer_accuracy_interval")),
        ]
        for value, part in values.items()
    ]
    return page.table([*head, "answer accuracy", "95 % interval"], lines)


def _asked(record: Result) -> str:
    lines = [["-" if data[key] is None else data[key] for key in _ASKED_COLUMNS] for data in record["datasets"]]
    prompts = "".join(
        page.details(
            f"{prompt['model']} on {prompt['dataset']}: {prompt['style']} prompt",
            page.pre(prompt["template"] if prompt["style"] == "plain" else f"system: {prompt['system_prompt']}")
            + page.note(f"ends at: {', '.join(map(repr, prompt['stop'])) or 'nothing but the end of turn'}"),
        )
        for prompt in record["prompts"]
    )
    return page.table(_ASKED_COLUMNS.values(), lines) + prompts


def _overlap(results: Sequence[Result], record: Result) -> str:
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
    return page.table(["model, data set", "problems in it", "accuracy without them", "searched"], lines)
