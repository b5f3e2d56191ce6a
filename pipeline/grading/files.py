"""Grade a file of completions, JSONL or parquet, in chunks: files of any size take little memory.

The process that reads and writes does not look into chunks. Whoever is given one, in another process or on another
machine, parses it, grades it and gives back what is to be written. A line of JSONL is kept as it was, byte by byte;
the verdict is put before its last brace.
"""

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipeline.errors import ClusterError, DataError
from pipeline.verifier import Grader, Verdict

SUFFIXES = (".jsonl", ".parquet")
CHUNK_BYTES, CHUNK_ROWS = 128 * 1024, 256
"""Of a JSONL file and of a parquet file: some tenths of a second of work."""
ROW_GROUP_BYTES = 32 * 2**20
NUM_EXAMPLES = 3
CHUNKS_PER_WORKER = 4
"""Read ahead, so that nobody waits behind a slow chunk."""

_VERDICT = ("outcome", "method", "answer")
_METHODS = ("strict", "symbolic", "numeric")


@dataclass(frozen=True)
class GradeSettings:
    completion_field: str = "completion"
    gold_field: str = "gold"
    all_methods: bool = False
    """Also write ``strict``, ``symbolic`` and ``numeric``."""
    timeout_s: float = 2.0
    memory_limit_mib: int = 512

    @property
    def columns(self) -> tuple[str, ...]:
        return (*_VERDICT, *_METHODS) if self.all_methods else _VERDICT


class Example(NamedTuple):
    """A completion that could not be graded."""

    number: int
    """Of its line or row, from 1."""
    gold: str
    answer: str | None


@dataclass
class Tally:
    """What the verdicts come to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=lambda: {"timeout": [], "bad_gold": []})

    def count(self, number: int, gold: str, verdict: Verdict) -> None:
        self.outcomes[verdict.outcome] += 1
        if verdict.method:
            self.methods[verdict.method] += 1
        kept = self.examples.get(verdict.outcome)
        if kept is not None and len(kept) < NUM_EXAMPLES:
            kept.append(Example(number, gold, verdict.answer))

    def add(self, other: "Tally") -> None:
        self.outcomes.update(other.outcomes)
        self.methods.update(other.methods)
        for outcome, kept in self.examples.items():
            kept += other.examples[outcome][: NUM_EXAMPLES - len(kept)]


class Chunk(NamedTuple):
    """Lines of JSONL, or a pyarrow RecordBatch."""

    first: int
    """Number of its first line or row, from 1."""
    data: Any
    read_frac: float
    """How much of the file is read with it."""


class GradedChunk(NamedTuple):
    data: Any
    """What is to be written: lines, or a RecordBatch."""
    read_frac: float
    tally: Tally


Spread = Callable[[GradeSettings, Iterable[Chunk]], Generator[GradedChunk, None, None]]
"""Calls ``grade_chunk`` somewhere else, and yields in the order of the chunks."""


def default_output(path: Path) -> Path:
    return path.with_name(f"{path.stem}.graded{path.suffix}")


def check_paths(path: Path, output: Path, *, overwrite: bool) -> None:
    """Raises DataError, before anything is started, when the file cannot be graded into ``output``."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} must be a {' or '.join(SUFFIXES)} file, got suffix {path.suffix or 'none'}.")
    if not path.is_file():
        raise DataError(f"{path} must be a file: there is none.")
    if output.suffix != path.suffix:
        raise DataError(f"output {output} must be in the format of the input, {path.suffix}.")
    if output.exists() and (output.samefile(path) or not output.is_file()):
        raise DataError(f"output {output} must be a file of its own. Name another with --output.")
    if output.exists() and not overwrite:
        raise DataError(f"output {output} is there already. Name another with --output, or replace it with --force.")


def grade_file(
    path: Path,
    output: Path,
    settings: GradeSettings,
    spread: Spread,
    on_progress: Callable[[int, float], None] = lambda num_rows, frac: None,
) -> Tally:
    """Write the rows of ``path``, in order, with their verdicts to ``output``, which appears when it is whole.

    A new column whose name is taken gets ``graded_`` before it, in JSONL row by row.

    Args:
        on_progress: told the rows so far and the share of the file they are.

    Raises:
        DataError: a file cannot be read or written, or a row cannot be graded; its number is named.
        ClusterError: nobody is left to grade.
    """
    is_jsonl = path.suffix == ".jsonl"
    chunks = _lines(path) if is_jsonl else _batches(path)
    total = Tally()
    with _written(output) as file, closing(spread(settings, chunks)) as graded, _sink(file, is_jsonl, output) as write:
        for chunk in graded:
            write(chunk.data)
            total.add(chunk.tally)
            on_progress(total.outcomes.total(), chunk.read_frac)
        if not total.outcomes:
            raise DataError(f"{path} must hold at least one row, got none.")
    return total


# Reading


def _lines(path: Path) -> Iterator[Chunk]:
    number = 1
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while lines := file.readlines(CHUNK_BYTES):
                yield Chunk(number, lines, file.tell() / max(size, file.tell()))
                number += len(lines)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _batches(path: Path) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 1
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(CHUNK_ROWS):
                frac = (number - 1 + batch.num_rows) / file.metadata.num_rows
                yield Chunk(number, batch, frac)
                number += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {_one_line(error)}.") from None


# Grading, in whatever process


def grade_chunk(settings: GradeSettings, chunk: Chunk) -> GradedChunk:
    """Raises DataError when a row cannot be graded."""
    return (_grade_lines if isinstance(chunk.data, list) else _grade_batch)(settings, chunk)


@lru_cache(maxsize=1)
def _grader(timeout_s: float, memory_limit_mib: int) -> Grader:
    return Grader(1, timeout_s, memory_limit_mib)


def _grade(settings: GradeSettings, unit: str, rows: list[tuple[int, Any, Any]]) -> tuple[list[tuple[Any, ...]], Tally]:
    """The values of the new columns for rows of (number, completion, gold)."""
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


def _as_text(value: Any, name: str, where: str) -> str:
    """Nothing is empty text: no answer in a completion, and no gold answer."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return str(value)
    raise DataError(f"{where}: {name} must be text or a number, got {type(value).__name__}.")


def _grade_lines(settings: GradeSettings, chunk: Chunk) -> GradedChunk:
    numbered = [(number, line.strip()) for number, line in enumerate(chunk.data, chunk.first)]
    parsed = [(number, line, _parse_line(line, number, settings)) for number, line in numbered if line]
    rows = [(number, row[settings.completion_field], row[settings.gold_field]) for number, _, row in parsed]
    values, tally = _grade(settings, "line", rows)
    lines = [
        line[:-1] + b", " + _dump(dict(zip(_free_names(settings.columns, row), new, strict=True)))[1:] + b"\n"
        for (_, line, row), new in zip(parsed, values, strict=True)
    ]
    return GradedChunk(lines, chunk.read_frac, tally)


def _parse_line(line: bytes, number: int, settings: GradeSettings) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError(f"line {number} must be UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"line {number} must be a JSON object: {_one_line(error)}.") from None
    if not isinstance(row, dict):
        raise DataError(f"line {number} must be a JSON object, got {type(row).__name__}.")
    _check_fields(row, settings, f"line {number} ")
    return row


def _grade_batch(settings: GradeSettings, chunk: Chunk) -> GradedChunk:
    import pyarrow as pa

    batch: pa.RecordBatch = chunk.data
    names = batch.schema.names
    _check_fields(names, settings, "the file ")
    try:
        completions, golds = (
            batch.column(names.index(name)).to_pylist() for name in (settings.completion_field, settings.gold_field)
        )
    except UnicodeDecodeError:
        raise DataError(f"rows from {chunk.first} on must be UTF-8.") from None
    rows = list(zip(range(chunk.first, chunk.first + batch.num_rows), completions, golds, strict=True))
    values, tally = _grade(settings, "row", rows)
    for name, free, column in zip(
        settings.columns, _free_names(settings.columns, names), zip(*values, strict=True), strict=True
    ):
        kind = pa.bool_() if name in _METHODS else pa.string()
        batch = batch.append_column(pa.field(free, kind), pa.array(column, kind))
    return GradedChunk(batch, chunk.read_frac, tally)


def _check_fields(names: Iterable[str], settings: GradeSettings, where: str) -> None:
    for option, name in (("--completion-field", settings.completion_field), ("--gold-field", settings.gold_field)):
        if name not in names:
            there = ", ".join(map(str, names)) or "none"
            raise DataError(f"{where}must have a field {name!r}, got {_shorten(there)}. Name another with {option}.")


def _free_names(columns: Iterable[str], taken: Iterable[str]) -> list[str]:
    names = []
    for name in columns:
        while name in taken:
            name = f"graded_{name}"
        names.append(name)
    return names


def _dump(row: dict[str, Any]) -> bytes:
    """A lone surrogate, which a line may hold as an escape, has no UTF-8 form and stays the escape that it was."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace")


def _one_line(error: BaseException) -> str:
    return _shorten(" ".join(str(error).split()).rstrip("."))


def _shorten(text: str, max_chars: int = 300) -> str:
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:max_chars])
    return printable + "..." * (len(text) > max_chars)


# Writing


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its place when the block ends well, and leaves nothing behind when it does not."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    with _named(path):
        file = hidden.open("wb")
    try:
        with file:
            yield file
        with _named(path):
            os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"output {path} cannot be written: {error.strerror or error}.") from None


@contextmanager
def _sink(file: BinaryIO, is_jsonl: bool, path: Path) -> Iterator[Callable[[Any], None]]:
    """What writes the data of graded chunks. Batches are gathered: small row groups make a file slow to read."""
    sink = _JsonlSink(file) if is_jsonl else _ParquetSink(file)

    def write(data: Any) -> None:
        with _named(path):
            sink.write(data)

    try:
        yield write
    finally:
        with _named(path):
            sink.close()


class _JsonlSink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, lines: list[bytes]) -> None:
        self._file.writelines(lines)

    def close(self) -> None:
        self._file.flush()


class _ParquetSink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: Any = None
        self._batches: list[Any] = []
        self._num_bytes = 0

    def write(self, batch: Any) -> None:
        import pyarrow.parquet as pq

        self._writer = self._writer or pq.ParquetWriter(self._file, batch.schema)
        self._batches.append(batch)
        self._num_bytes += batch.nbytes
        if self._num_bytes > ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_batches(self._batches))
        self._batches, self._num_bytes = [], 0

    def close(self) -> None:
        if self._batches:
            self._flush()
        if self._writer:
            self._writer.close()
        self._file.flush()


# Spreading over this machine


def over_processes(
    settings: GradeSettings, chunks: Iterable[Chunk], num_workers: int
) -> Generator[GradedChunk, None, None]:
    """A ``Spread`` over processes of this machine. They end with this one, however it ends."""
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    waiting: deque[Future[GradedChunk]] = deque()
    try:
        for chunk in chunks:
            waiting.append(executor.submit(grade_chunk, settings, chunk))
            if len(waiting) == CHUNKS_PER_WORKER * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ClusterError(
            "a grading process was ended from outside, perhaps for lack of memory. Take fewer with --num-workers."
        ) from None
    finally:
        if waiting:  # it went wrong: what they are at is of no use
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        executor.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
