"""The page of a generation: what was kept, why the rest was rejected, the proof about test sets, and a browser for the
written problems."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.browser import View, browser_page
from pipeline.evaluation.evaluation_page import MAX_ROWS_SHOWN
from pipeline.questions.rows import Row
from pipeline.reports import page

_TEXTS = ("statement", "solution", "answer", "original", "completion", "prompt", "detail")
_COUNTS = {
    "name": "data set",
    "num_problems": "problems compared",
    "num_exact_written": "exact copies written",
    "num_near_written": "near copies written",
    "num_exact_kept": "exact copies kept",
    "num_near_kept": "near copies kept",
}


def written_page(
    title: str, report: Mapping[str, Any], config: Mapping[str, Any], rows: Sequence[Row], file: str = "written.jsonl"
) -> str:
    """HTML of ``page.html``.

    Args:
        report: the contents of ``report.json``.
        config: the job's settings, as plain JSON.
        rows: all written problems, judged. The page shows the first MAX_ROWS_SHOWN.
    """
    parts = list(rows[0]["parts"]) if rows else []
    shown = [_shown(row) for row in rows[:MAX_ROWS_SHOWN]]
    return browser_page(title, _headline(report), _sections(report, config, file), shown, _view(parts, file))


def _shown(row: Row) -> dict[str, Any]:
    verdict = {"verdict": "kept" if row["is_kept"] else "rejected"}
    prompt = "\n\n".join(f"{message['role']}: {message['content']}" for message in row["prompt"])
    return row | verdict | {"prompt": prompt} | {_field(name): value for name, value in row["parts"].items()}


def _field(part: str) -> str:
    return f"parts.{part}"


def _view(parts: Sequence[str], file: str) -> View:
    facets = ("verdict", "reason", "kind", "topic", "level")
    scores = ("quality", *map(_field, parts))
    return View(
        item="problem",
        file=file,
        fields=(*facets, "id", "sample", *scores, "model", "seed", *_TEXTS),
        facets=facets,
        searched=("statement", "solution", "answer", "completion", "detail"),
        columns=("id", "sample", "verdict", "reason", "statement", "answer", "kind", "topic", "level", *scores),
        numbers=("sample", *scores),
        facts=(*facets, *scores, "model", "seed"),
        texts=(("detail",), ("statement",), ("solution", "answer"), ("original",)),
        folded={"completion": "Completion, as it was written", "prompt": "Prompt"},
        answers=("answer",),
        names={"detail": "details"} | {_field(part): part.replace("_", " ") for part in parts},
    )


def _headline(report: Mapping[str, Any]) -> str:
    asked, kept, written = report["num_asked"], report["num_kept"], report["num_written"]
    num_too_long = report["record"].get("num_too_long")
    copies = sum(found["num_exact_kept"] + found["num_near_kept"] for found in report["test_sets"])
    facts = [
        "" if report["is_complete"] else f"incomplete: {kept:,} of {asked:,} problems",
        f"written by {report['record']['model']['name']}",
        f"seed {report['record']['settings']['seed']}",
        f"{num_too_long:,} tasks left out: too long" if num_too_long else "",
    ]
    cards = [
        ("problems kept", f"{kept:,}"),
        ("written", f"{written:,}"),
        ("kept of written", f"{kept / written:.1%}" if written else "-"),
        ("test problems among them", copies),
    ]
    return page.headline(facts, cards)


def _sections(report: Mapping[str, Any], config: Mapping[str, Any], file: str) -> dict[str, str]:
    cut = f"This page shows the first {MAX_ROWS_SHOWN:,} problems: {file} has them all."
    return {
        "By topic and level": page.table(
            ["kind", "topic", "level", "asked for", "written", "kept"],
            [["-" if value == "" else value for value in cell.values()] for cell in report["cells"]],
        ),
        "Why problems were rejected": page.table(["reason", "problems"], report["reasons"].items()),
        "Scores": page.table(
            ["part", "mean of what was written", "mean of what was kept"],
            [[part, *map(_score, means.values())] for part, means in report["mean_parts"].items()],
        ),
        "Test sets": _proof(report),
        "Other data": _others(report),
        "Configuration": page.configuration(config),
        "Versions": page.table(["package", "version"], report["versions"].items(), "plain"),
        "Rows left out": page.note(cut) if report["num_written"] > MAX_ROWS_SHOWN else "",
    }


def _proof(report: Mapping[str, Any]) -> str:
    missing = page.table(["not compared", "reason"], report["not_compared"].items(), "plain")
    note = (
        "Every statement that was written is compared with every test problem. Exact: the same apart from case, white "
        "space and punctuation. Near: mostly the same runs of three words, with other numbers, with other names and "
        "things, or with other numbers and names at once."
    )
    return _counts(report["test_sets"]) + page.note(note) + (missing if report["not_compared"] else "")


def _others(report: Mapping[str, Any]) -> str:
    note = (
        "Data that must not be repeated. Near: with other numbers, or with other names and things. Problems with other "
        "parameters may be near copies of the training data."
    )
    return _counts(report["other_data"]) + page.note(note) if report["other_data"] else ""


def _counts(found: Sequence[Mapping[str, Any]]) -> str:
    return page.table(_COUNTS.values(), [[each[key] for key in _COUNTS] for each in found])


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
