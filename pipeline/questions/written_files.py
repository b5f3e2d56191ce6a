"""Files of a generation: the problems as training data, everything that was written, a report and a page."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pipeline.errors import CheckpointError, DataError
from pipeline.files import write_atomic, write_json, write_jsonl, write_parquet
from pipeline.questions.contamination import TestSets, comparisons, proof
from pipeline.questions.filters import Similar
from pipeline.questions.quotas import Cell, Quotas
from pipeline.questions.recount import copies
from pipeline.questions.rows import Row
from pipeline.questions.written_page import written_page
from pipeline.reports import page

PROBLEMS = "problems"
WRITTEN_FILE = "written.jsonl"
REPORT_FILE = "report.json"
Report = dict[str, Any]
_SAME = ("solution", "answer", "level", "id", "quality", "parts", "original", "model", "seed", "prompt")


def write_generation(
    directory: Path,
    rows: Sequence[Row],
    quotas: Quotas,
    test_sets: TestSets,
    others: Mapping[str, Similar],
    config: Mapping[str, Any],
    record: Mapping[str, Any],
) -> Report:
    """Write all files and return the report. Each file appears complete.

    Args:
        rows: all that was written, judged.
        others: other data that was not to be repeated, by name.
        config, record: settings, and what the job started with, as plain JSON.

    Raises:
        CheckpointError: a file cannot be written.
        DataError: a problem in ``problems.jsonl`` is a copy of a test problem.
    """
    found = report(rows, quotas, test_sets, others) | {"record": record, "versions": page.versions()}
    kept = [training_row(row) for row in rows if row["is_kept"]]
    with page.writing_to(directory, "Free some space, then continue with --resume."):
        write_jsonl(directory / WRITTEN_FILE, rows)
        write_jsonl(directory / f"{PROBLEMS}.jsonl", kept)
        _check_copies(directory / f"{PROBLEMS}.jsonl", test_sets)
        _write_parquet(directory / f"{PROBLEMS}.parquet", kept)
        html = written_page(directory.resolve().name, found, config, rows)
        write_atomic(directory / "page.html", html.encode())
        write_json(directory / REPORT_FILE, found)
    return found


def _check_copies(path: Path, test_sets: TestSets) -> None:
    """Check the finished file for copies of test problems once more. Deletes the file if there are any."""
    statements = [
        json.loads(line)["problem"] for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n") if line
    ]
    texts = {name: known.texts for name, known in test_sets.texts.items()}
    if found := list(copies(statements, texts, test_sets.near)):
        path.unlink()
        raise DataError(
            f"problems that are kept must be no copies of test problems, got {len(found)}: {'; '.join(found[:3])}. "
            "The filter has missed them, which is a fault of ours. Nothing is kept."
        )


def read_report(directory: Path) -> Report:
    """The report of a finished generation. Raises CheckpointError if there is none yet."""
    try:
        return cast(Report, json.loads((directory / REPORT_FILE).read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory} must be a finished generation, with {REPORT_FILE}: {error}.") from None


def result_lines(found: Report) -> list[str]:
    """A report in a few lines."""
    lines = [f"{found['num_kept']} of {found['num_asked']} problems, of {found['num_written']} that were written"]
    if not found["is_complete"]:
        lines.append("incomplete: no more may be written. Raise max_attempts, lower keep.min_quality, or train longer.")
    lines += [f"  rejected, {reason}: {count}" for reason, count in found["reasons"].items()]
    if num_too_long := found["record"].get("num_too_long"):
        lines.append(f"{num_too_long} tasks were too long for rollout.max_prompt_length and were left out")
    copies = sum(each["num_exact_kept"] + each["num_near_kept"] for each in found["test_sets"])
    num_problems = sum(each["num_problems"] for each in found["test_sets"])
    lines.append(f"{copies} copies of {num_problems} problems of {len(found['test_sets'])} test sets are among them")
    if missing := found["not_compared"]:
        lines.append(f"not compared: {', '.join(missing)}")
    return lines


def training_row(row: Row) -> dict[str, Any]:
    """A kept problem, in the columns of problems.parquet and problems.jsonl."""
    named = {"problem": row["statement"], "type": row["topic"], "source": row["kind"]}
    return named | {name: row[name] for name in _SAME}


def report(rows: Sequence[Row], quotas: Quotas, test_sets: TestSets, others: Mapping[str, Similar]) -> Report:
    """Counts of problems asked for, written and kept, reasons of the rest, the proof about the test sets, and the same
    counts for other data."""
    written, kept = (Counter(map(Cell.of, part)) for part in (rows, [row for row in rows if row["is_kept"]]))
    return {
        "num_asked": sum(quotas.values()),
        "num_written": len(rows),
        "num_kept": kept.total(),
        "is_complete": all(kept[cell] >= quota for cell, quota in quotas.items()),
        "reasons": dict(Counter(row["reason"] for row in rows if not row["is_kept"]).most_common()),
        "cells": [
            cell._asdict() | {"num_asked": quota, "num_written": written[cell], "num_kept": kept[cell]}
            for cell, quota in quotas.items()
        ],
        "mean_parts": {name: _mean(rows, name) for name in (rows[0]["parts"] if rows else ())},
        "test_sets": proof(test_sets, rows),
        "other_data": comparisons(others, {name: len(texts) for name, texts in others.items()}, rows),
        "not_compared": dict(test_sets.missing),
    }


def _mean(rows: Sequence[Row], part: str) -> dict[str, float | None]:
    """Mean of a reward part, over all rows and over the kept ones."""
    values = {"written": [r["parts"][part] for r in rows], "kept": [r["parts"][part] for r in rows if r["is_kept"]]}
    return {among: sum(found) / len(found) if found else None for among, found in values.items()}


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {"quality": pa.float64(), "seed": pa.int64(), "prompt": pa.list_(message)}
    if rows:
        kinds["parts"] = pa.struct([(name, pa.float64()) for name in rows[0]["parts"]])
    names = ("problem", "type", "source", *_SAME)
    write_parquet(path, rows, {name: kinds.get(name, pa.string()) for name in names})
