"""Grades one chunk of a file, in any process. A line of JSONL is kept byte for byte: the verdict goes before its last
brace."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import DataError
from pipeline.grading.tables import Chunk, one_line, shorten
from pipeline.grading.tally import Tally
from pipeline.verifier import Grader

if TYPE_CHECKING:
    import pyarrow as pa

CHUNKS_PER_WORKER = 4
"""Read ahead, so that no worker waits behind a slow chunk."""

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

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the new columns."""
        return (*_VERDICT, *_METHODS) if self.all_methods else _VERDICT


class GradedChunk(NamedTuple):
    data: "list[bytes] | pa.RecordBatch"
    """Lines or a batch, ready to be written."""
    read_frac: float
    tally: Tally


def grade_chunk(settings: GradeSettings, chunk: Chunk) -> GradedChunk:
    """Raises DataError if a row cannot be graded."""
    if isinstance(chunk.data, list):
        data, tally = _grade_lines(settings, chunk.first, chunk.data)
    else:
        data, tally = _grade_batch(settings, chunk.first, chunk.data)
    return GradedChunk(data, chunk.read_frac, tally)


def _grade_lines(settings: GradeSettings, first: int, lines: list[bytes]) -> tuple[list[bytes], Tally]:
    numbered = [(number, line.strip()) for number, line in enumerate(lines, first)]
    parsed = [(number, line, _parse_line(line, number, settings)) for number, line in numbered if line]
    rows = [(number, row[settings.completion_field], row[settings.gold_field]) for number, _, row in parsed]
    values, tally = _grade_rows(settings, "line", rows)
    graded = [
        line[:-1] + b", " + _dump(dict(zip(_free_names(settings.columns, row), new, strict=True)))[1:] + b"\n"
        for (_, line, row), new in zip(parsed, values, strict=True)
    ]
    return graded, tally


def _grade_batch(settings: GradeSettings, first: int, batch: "pa.RecordBatch") -> "tuple[pa.RecordBatch, Tally]":
    import pyarrow as pa

    names = batch.schema.names
    _check_fields(names, settings, "the file ")
    try:
        completions, golds = (
            batch.column(names.index(name)).to_pylist() for name in (settings.completion_field, settings.gold_field)
        )
    except UnicodeDecodeError:
        raise DataError(f"rows from {first} on must be UTF-8.") from None
    rows = list(zip(range(first, first + batch.num_rows), completions, golds, strict=True))
    values, tally = _grade_rows(settings, "row", rows)
    for name, free, column in zip(
        settings.columns, _free_names(settings.columns, names), zip(*values, strict=True), strict=True
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
            _as_text(completion, settings.completion_field, f"{unit} {number}"),
            _as_text(gold, settings.gold_field, f"{unit} {number}"),
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


def _as_text(value: Any, name: str, where: str) -> str:
    """A missing value is empty text: a completion without an answer, or no gold answer."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return str(value)
    raise DataError(f"{where}: {name} must be text or a number, got {type(value).__name__}.")


def _parse_line(line: bytes, number: int, settings: GradeSettings) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_int=_integer)
    except UnicodeDecodeError:
        raise DataError(f"line {number} must be UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"line {number} must be a JSON object: {one_line(error)}.") from None
    if not isinstance(row, dict):
        raise DataError(f"line {number} must be a JSON object, got {type(row).__name__}.")
    _check_fields(row, settings, f"line {number} ")
    return row


def _integer(digits: str) -> int | Decimal:
    """Every digit of an integer, however many: Python refuses to turn more than 4,300 into an int."""
    return int(digits) if len(digits) <= 4000 else Decimal(digits)


def _check_fields(names: Iterable[str], settings: GradeSettings, where: str) -> None:
    for option, name in (("--completion-field", settings.completion_field), ("--gold-field", settings.gold_field)):
        if name not in names:
            present = ", ".join(map(str, names)) or "none"
            raise DataError(f"{where}must have a field {name!r}, got {shorten(present)}. Name another with {option}.")


def _free_names(columns: Iterable[str], taken: Iterable[str]) -> list[str]:
    """The column names, each prefixed with ``graded_`` until it is not taken."""
    names = []
    for name in columns:
        while name in taken:
            name = f"graded_{name}"
        names.append(name)
    return names


def _dump(row: dict[str, Any]) -> bytes:
    """A lone surrogate, which a line may hold as an escape, has no UTF-8 form and stays an escape."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace")
