"""Arrow files that are written once, whole or not at all, and mapped into memory when they are read."""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from pipeline.files import sha256

ROWS_PER_BATCH = 1000
"""Rows written at a time, and read at a time when all rows are read."""
ROWS_IN_MEMORY = 256
"""Single rows read before the file's pages are given back, so that a pass over all rows never holds the whole file."""


def code_digest(*files: str | None) -> str:
    """Digest of the source files that decide what is stored, so that a change of code makes a new file.

    Args:
        files: ``__file__`` of each module.
    """
    return hashlib.sha256("".join(sha256(Path(file)) for file in files if file).encode()).hexdigest()


@contextmanager
def made_once(path: Path) -> Iterator[Path | None]:
    """A hidden path to write to, which is then renamed to ``path``; None if the file already exists and is whole.

    One process writes it while others wait. A partial file left by a killed process is deleted.
    """
    with FileLock(path.with_name(f".{path.name}.lock")):
        if _is_whole(path):
            yield None
            return
        hidden = path.with_name(f".{path.name}.partial")
        try:
            yield hidden
            os.replace(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Arrow writes the footer last: if it can be read, nothing before it is missing."""
    try:
        ArrowRows(path)
    except (OSError, ValueError, pa.ArrowException):  # ValueError: the file is empty
        return False
    return True


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


class ArrowRows:
    """Rows of an Arrow file, mapped into memory for as long as this object lives.

    Raises:
        OSError, ValueError, pa.ArrowException: the file is missing, empty or cut short.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.py_buffer(self._map))
        self.all_batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._ends = np.cumsum([batch.num_rows for batch in self.all_batches], dtype=np.int64)
        self._num_read = 0

    @property
    def num_rows(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def row(self, row: int) -> dict[str, Any]:
        self._num_read += 1
        if self._num_read % ROWS_IN_MEMORY == 0:
            self._map.madvise(mmap.MADV_DONTNEED)
        index = int(np.searchsorted(self._ends, row, side="right"))
        values: dict[str, Any] = self.all_batches[index].slice(row - self._start(index), 1).to_pylist()[0]
        return values

    def batches(self, rows: np.ndarray, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """These rows, in this order. Consecutive rows from the same batch of the file come as one batch.

        Args:
            rows: [num_rows] int64.
            columns: None for all.
        """
        of_batch = np.searchsorted(self._ends, rows, side="right")
        bounds = np.flatnonzero(np.diff(of_batch, prepend=-1, append=-1))
        for start, stop in pairwise(bounds):
            index = int(of_batch[start])
            batch = self.all_batches[index]
            yield (batch.select(columns) if columns else batch).take(pa.array(rows[start:stop] - self._start(index)))

    def _start(self, index: int) -> int:
        return int(self._ends[index]) - int(self.all_batches[index].num_rows)


def list_lengths(lists: pa.ListArray) -> np.ndarray:
    """The length of every list: [num_lists] int32. No element is read."""
    return np.diff(lists.offsets.to_numpy()).astype(np.int32)
