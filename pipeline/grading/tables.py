"""Reads and writes JSONL and parquet files chunk by chunk. Rows are not parsed here."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from pipeline.errors import DataError
from pipeline.files import hidden_name

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".jsonl", ".parquet")
CHUNK_BYTES, CHUNK_ROWS = 128 * 1024, 256
"""Size of a chunk of a JSONL file and of a parquet file: a few tenths of a second of work."""
ROW_GROUP_BYTES = 32 * 2**20


class Chunk(NamedTuple):
    """Consecutive rows of a file."""

    first: int
    """Number of the first line or row, from 1."""
    data: "list[bytes] | pa.RecordBatch"
    """Lines of JSONL, or a batch of parquet rows."""
    read_frac: float
    """Share of the file read so far, this chunk included."""


def read_chunks(path: Path) -> Generator[Chunk, None, None]:
    """The chunks of a file, by its suffix. Raises DataError if it cannot be read."""
    return _lines(path) if path.suffix == ".jsonl" else _batches(path)


def _lines(path: Path) -> Generator[Chunk, None, None]:
    number = 1
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while lines := file.readlines(CHUNK_BYTES):
                yield Chunk(number, lines, file.tell() / max(size, file.tell()))
                number += len(lines)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _batches(path: Path) -> Generator[Chunk, None, None]:
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
        raise DataError(f"{path} cannot be read as parquet: {one_line(error)}.") from None


def one_line(error: BaseException) -> str:
    return shorten(" ".join(str(error).split()).rstrip("."))


def shorten(text: str, max_chars: int = 300) -> str:
    """The start of a text, with unprintable characters escaped."""
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:max_chars])
    return printable + "..." * (len(text) > max_chars)


@contextmanager
def open_output(path: Path) -> Iterator[Callable[[Any], None]]:
    """Yields a function that writes the data of one graded chunk.

    The file appears under its name once the block has ended without an error; after an error nothing is left behind.

    Raises:
        DataError: the file cannot be written.
    """
    with _hidden_file(path) as file:
        sink = _JsonlSink(file) if path.suffix == ".jsonl" else _ParquetSink(file)

        def write(data: Any) -> None:
            with _write_errors(path):
                sink.write(data)

        try:
            yield write
        finally:
            with _write_errors(path):
                sink.close()


@contextmanager
def _hidden_file(path: Path) -> Iterator[BinaryIO]:
    hidden = hidden_name(path)
    with _write_errors(path):
        file = hidden.open("wb")
    try:
        with file:
            yield file
        with _write_errors(path):
            os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"output {path} cannot be written: {error.strerror or error}.") from None


class _JsonlSink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, lines: list[bytes]) -> None:
        self._file.writelines(lines)

    def close(self) -> None:
        self._file.flush()


class _ParquetSink:
    """Collects batches into row groups: small row groups make a file slow to read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: Any = None
        self._batches: list[pa.RecordBatch] = []
        self._num_bytes = 0

    def write(self, batch: "pa.RecordBatch") -> None:
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
