"""Grades one chunk of a file, in any process. A line of JSONL is kept byte for byte: the verdict goes before its last
brace."""

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import DataError
from pipeline.fields import ABSENT, as_text, columns_of, lookup, parse_line, stored_features, table_columns
from pipeline.grading.tables import Chunk, read_chunks, shorten
from pipeline.grading.tally import Tally
from pipeline.verifier import Grader

if TYPE_CHECKING:
    import pyarrow as pa

CHUNKS_PER_WORKER = 4
"""Read ahead, so that no worker waits behind a slow chunk."""
CHUNK_LIMIT_S = 3600.0
"""Maximum seconds until the next graded chunk."""

_VERDICT = ("outcome", "method", "answer")
_METHODS = ("strict", "symbolic", "numeric")


@dataclass(frozen=True)
class GradeSettings:
    """Fields to read, columns to write, and limits for each pair of completion and gold answer."""

    completion_field: str = "completion"
    gold_field: str = "gold"
    all_methods: bool = False
    """Also write ``strict``, ``symbolic`` and ``numeric``."""
    timeout_s: float = 2.0
    memory_limit_mib: int = 512
    names: tuple[str, ...] = ()
    """The new columns' names in a JSONL file, by ``with_names``. Empty: ``columns``."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the new columns."""
        return (*_VERDICT, *_METHODS) if self.all_methods else _VERDICT


class GradedChunk(NamedTuple):
    data: "list[bytes] | pa.RecordBatch"
    """Lines or a batch, ready to be written."""
    read_frac: float
    tally: Tally


def with_names(settings: GradeSettings, path: Path) -> GradeSettings:
    """The settings with names for the new columns that are free in the first row of a JSONL file."""
    if path.suffix != ".jsonl":
        return settings
    with closing(read_chunks(path)) as chunks:
        lines = (line.strip() for chunk in chunks for line in chunk.data)
        number, line = next(((number, line) for number, line in enumerate(lines, 1) if line), (1, b"{}"))
    return replace(settings, names=tuple(_free_names(settings.columns, parse_line(line, f"line {number}"))))


def grade_chunk(settings: GradeSettings, chunk: Chunk) -> GradedChunk:
    """Raises DataError if a row cannot be graded."""
    if isinstance(chunk.data, list):
        data, tally = _grade_lines(settings, chunk.first, chunk.data)
    else:
        data, tally = _grade_batch(settings, chunk.first, chunk.data)
    return GradedChunk(data, chunk.read_frac, tally)


def _grade_lines(settings: GradeSettings, first: int, lines: list[bytes]) -> tuple[list[bytes], Tally]:
    numbered = [(number, line.strip()) for number, line in enumerate(lines, first)]
    parsed = [(number, line, parse_line(line, f"line {number}")) for number, line in numbered if line]
    names = settings.names or settings.columns
    for number, _, row in parsed:
        _check_free(names, row, number)
    rows = [(number, *_fields(row, settings, f"line {number} ")) for number, _, row in parsed]
    values, tally = _grade_rows(settings, "line", rows)
    graded = [
        line[:-1] + b", " + _dump(dict(zip(names, new, strict=True)))[1:] + b"\n"
        for (_, line, _), new in zip(parsed, values, strict=True)
    ]
    return graded, tally


def _grade_batch(settings: GradeSettings, first: int, batch: "pa.RecordBatch") -> "tuple[pa.RecordBatch, Tally]":
    import pyarrow as pa

    names = batch.schema.names
    columns = columns_of((settings.completion_field, settings.gold_field), names)
    features = stored_features(batch.schema, "the file")
    values = zip(*table_columns(batch, columns, features, f"rows from {first} on"), strict=True)
    rows = [
        (number, *_fields(dict(zip(columns, row, strict=True)), settings, f"row {number} ", names))
        for number, row in enumerate(values, first)
    ]
    verdicts, tally = _grade_rows(settings, "row", rows)
    for name, free, column in zip(
        settings.columns, _free_names(settings.columns, names), zip(*verdicts, strict=True), strict=True
    ):
        kind = pa.bool_() if name in _METHODS else pa.string()
        batch = batch.append_column(pa.field(free, kind), pa.array(column, kind))
    return batch, tally


def _grade_rows(
    settings: GradeSettings, unit: str, rows: list[tuple[int, Any, Any]]
) -> tuple[list[tuple[Any, ...]], Tally]:
    """Values of the new columns for rows of (number, completion, gold)."""
    pairs = [
        (
            as_text(completion, settings.completion_field, f"{unit} {number}"),
            as_text(gold, settings.gold_field, f"{unit} {number}"),
        )
        for number, completion, gold in rows
    ]
    grader = _grader(settings.timeout_s, settings.memory_limit_mib)
    verdicts = grader.grade_batch(pairs, all_methods=settings.all_methods)
    tally = Tally()
    for (number, *_), (_, gold), verdict in zip(rows, pairs, verdicts, strict=True):
        tally.count(number, gold, verdict)
    return [tuple(getattr(verdict, name) for name in settings.columns) for verdict in verdicts], tally


@lru_cache(maxsize=1)
def _grader(timeout_s: float, memory_limit_mib: int) -> Grader:
    """One grader per process."""
    return Grader(1, timeout_s, memory_limit_mib)


def _fields(
    row: Mapping[str, Any], settings: GradeSettings, where: str, columns: Iterable[str] | None = None
) -> tuple[Any, Any]:
    """Completion and gold. Raises DataError if the row lacks one.

    Args:
        columns: of the file, if the row is only a part of it.
    """
    values = lookup(row, settings.completion_field), lookup(row, settings.gold_field)
    for value, option in zip(values, ("completion-field", "gold-field"), strict=True):
        if value is ABSENT:
            name = getattr(settings, option.replace("-", "_"))
            present = ", ".join(map(str, columns or row)) or "none"
            raise DataError(f"{where}must have a field {name!r}, got {shorten(present)}. Name another with --{option}.")
    return values


def _free_names(columns: Iterable[str], taken: Iterable[str]) -> list[str]:
    """The column names, each prefixed with ``graded_`` until it is not taken."""
    names = []
    for name in columns:
        while name in taken:
            name = f"graded_{name}"
        names.append(name)
    return names


def _check_free(names: Iterable[str], row: Mapping[str, Any], number: int) -> None:
    if taken := [name for name in names if name in row]:
        raise DataError(
            f"line {number} must not have a field {taken[0]!r}: the first row has none, so it is the name of a new "
            "field. Rename it, or give it to the first row too."
        )


def _dump(row: dict[str, Any]) -> bytes:
    """A lone surrogate, which a line may hold as an escape, has no UTF-8 form and stays an escape."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace")
