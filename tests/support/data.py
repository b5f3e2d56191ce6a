"""Small data sets in files, and checks of their splits."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.splits.records import Record
from pipeline.data.splits.stratify import normalized


def write_jsonl(path: Path, *rows: dict[str, Any]) -> str:
    """Writes the rows, and returns the file's name for ``DataConfig``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def math_row(
    problem: str, level: object = "Level 1", solution: object = r"so \boxed{1}", type: str = "Algebra"
) -> dict[str, Any]:
    """A row of the MATH data set."""
    return {"problem": problem, "level": level, "type": type, "solution": solution}


def check_nothing_is_shared(train: list[Record], test: list[Record]) -> None:
    """No problem is on both sides of a split, in whatever spelling."""
    assert not {normalized(record.problem) for record in train} & {normalized(record.problem) for record in test}


def write_parquet(path: Path, columns: dict[str, Any] | pa.Table, features: dict[str, Any] | None = None) -> str:
    """Writes columns, with features of the datasets library if there are any, and returns the file's name."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return str(path)
