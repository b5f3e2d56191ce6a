"""What a generation leaves: the problems as training data, all that was written, a report and a page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import hidden_name, write_atomic, write_json, write_jsonl
from pipeline.questions.rows import Row
from pipeline.questions.quotas import Cell, Quotas
from pipeline.questions.test_sets import TestSets, proof
from pipeline.questions.written_page import written_page
from pipeline.reports import page

PROBLEMS = "problems"
WRITTEN_FILE = "written.jsonl"
Report = dict[str, Any]
_SAME = ("solution", "answer", "level", "id", "quality", "parts", "original", "model", "seed", "prompt")


def write_generation(
    directory: Path,
    rows: Sequence[Row],
    quotas: Quotas,
    test_sets: TestSets,
    config: Mapping[str, Any],
    record: Mapping[str, Any],
) -> Report:
    """Write all files; each appears whole. Returns the report.

    Args:
        rows: all that was written, judged.
        config, record: settings, and what the job started with, as plain JSON.
    """
    found = report(rows, quotas, test_sets) | {"record": record, "versions": page.versions()}
    kept = [training_row(row) for row in rows if row["is_kept"]]
    with page.writing_to(directory, "Free some space, then continue with --resume."):
        write_jsonl(directory / WRITTEN_FILE, rows)
        write_jsonl(directory / f"{PROBLEMS}.jsonl", kept)
        _write_parquet(directory / f"{PROBLEMS}.parquet", kept)
        html = written_page(directory.resolve().name, found, config, rows)
        write_atomic(directory / "page.html", html.encode())
        write_json(directory / "report.json", found)
    return found


def training_row(row: Row) -> dict[str, Any]:
    """A kept problem, in the columns of problems.parquet and problems.jsonl."""
    named = {"problem": row["statement"], "type": row["topic"], "source": row["kind"]}
    return named | {name: row[name] for name in _SAME}


def report(rows: Sequence[Row], quotas: Quotas, test_sets: TestSets) -> Report:
    """What was asked for, written and kept, why the rest was not, and the proof about the test sets."""
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
        "not_compared": dict(test_sets.missing),
    }


def _mean(rows: Sequence[Row], part: str) -> dict[str, float | None]:
    """Of a part of the reward: among all, and among what is kept."""
    values = {"written": [r["parts"][part] for r in rows], "kept": [r["parts"][part] for r in rows if r["is_kept"]]}
    return {among: sum(found) / len(found) if found else None for among, found in values.items()}


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"quality": pa.float64(), "seed": pa.int64()}
    if rows:
        kinds["parts"] = pa.struct([(name, pa.float64()) for name in rows[0]["parts"]])
    names = ("problem", "type", "source", *_SAME)
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    hidden = hidden_name(path)
    try:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), hidden)
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
