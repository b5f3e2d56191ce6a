"""Problems and their tokens in Arrow files, read where they are needed.

A data set is made into a table once, under ``data_cache/<digest>/`` of ``output.root``, and its tokens once for each
tokenizer. Both files are written under hidden names and renamed when they are whole, so that a file that is there is
complete. Nobody holds all rows: they are written in batches and mapped into memory when they are read.
"""

import hashlib
import importlib.metadata
import json
import mmap
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
from filelock import FileLock

from pipeline import templates
from pipeline.config import Config, DataConfig
from pipeline.data import sources
from pipeline.data.sources import Split, iter_problems, source_digest, split_expression
from pipeline.errors import ConfigError
from pipeline.files import sha256
from pipeline.models import tokenizer
from pipeline.types import Problem, ProblemHead

ROWS_PER_BATCH = 1000
"""Rows that are written, and read in a walk over all of them, at a time."""
ROWS_IN_MEMORY = 256
"""Single rows that are read before the file's pages are given back: else a pass over all rows would hold the file."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PROBLEMS = pa.schema(
    [("id", pa.string()), ("prompt", _MESSAGES), ("gold", pa.string()), ("solution", pa.string())]
    + [(name, pa.string()) for name in ("level", "type", "source", "prompt_text")]
)
TOKENS = pa.schema([("prompt", pa.list_(pa.int32())), ("completion", pa.list_(pa.int32()))])
_PROBLEM_CODE = [Path(module.__file__ or "") for module in (sources, templates)] + [Path(__file__)]
_TOKEN_CODE = [Path(tokenizer.__file__ or ""), Path(__file__)]
_TOKENIZER_FILES = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py"}


class ProblemTable(Sequence[Problem]):
    """Problems that stay in a file. Pickled as its path and the rows; the file is opened when it is first read."""

    def __init__(self, path: Path, table_digest: str, rows: np.ndarray) -> None:
        """
        Args:
            table_digest: of everything that the file's content depends on.
            rows: [num_problems] int64, rows of the file.
        """
        self.path, self.table_digest, self.rows = path, table_digest, rows
        self._file: _ArrowRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> "ProblemTable": ...
    def __getitem__(self, index: int | slice) -> "Problem | ProblemTable":
        if isinstance(index, slice):
            return ProblemTable(self.path, self.table_digest, self.rows[index])
        if self._file is None:
            self._file = _ArrowRows(self.path)
        return _problem(self._file.row(int(self.rows[index])))

    def __iter__(self) -> Iterator[Problem]:
        for batch in _ArrowRows(self.path).batches(self.rows):
            yield from map(_problem, batch.to_pylist())

    def whole(self) -> "ProblemTable":
        """All rows of the file."""
        return ProblemTable(self.path, self.table_digest, np.arange(_ArrowRows(self.path).num_rows))

    def take(self, rows: Sequence[int] | np.ndarray) -> "ProblemTable":
        """The problems at these places, in this order."""
        return ProblemTable(self.path, self.table_digest, self.rows[np.asarray(rows, dtype=np.int64)])

    def heads(self) -> Iterator[ProblemHead]:
        """What the problems can be chosen by, without their texts."""
        row = 0
        for batch in _ArrowRows(self.path).batches(self.rows, ["id", "level", "type", "source", "solution"]):
            has_solution = batch["solution"].is_valid().to_pylist()
            columns = (map(_interned, batch[name].to_pylist()) for name in ("level", "type", "source"))
            for id, level, type, source, solved in zip(batch["id"].to_pylist(), *columns, has_solution, strict=True):
                yield ProblemHead(row, id, level, type, source, solved)
                row += 1

    @property
    def digest(self) -> str:
        """16 hex digits over the table and the chosen rows."""
        return hashlib.sha256(self.table_digest.encode() + self.rows.tobytes()).hexdigest()[:16]


class TokenTable:
    """The tokens of a table's problems, by row of the file. Pickled as its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: _ArrowRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}

    def __getitem__(self, row: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prompt and completion; the completion is empty where there is no worked solution."""
        if self._file is None:
            self._file = _ArrowRows(self.path)
        tokens = self._file.row(row)
        return tuple(tokens["prompt"]), tuple(tokens["completion"])

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of every row's prompt, and of its completion: [num_rows] int32 each. No token is read."""
        batches = _ArrowRows(self.path).all_batches
        prompt, completion = (
            np.concatenate([np.zeros(0, np.int32), *(_lengths(batch[name]) for batch in batches)])
            for name in TOKENS.names
        )
        return prompt, completion


P = TypeVar("P", bound=Sequence[Problem])


def heads(problems: Sequence[Problem]) -> Iterator[ProblemHead]:
    """Of a table or of any other sequence."""
    if isinstance(problems, ProblemTable):
        yield from problems.heads()
    else:
        for row, p in enumerate(problems):
            yield ProblemHead(row, p.id, p.level, p.type, p.source, p.solution is not None)


def take(problems: P, rows: Sequence[int]) -> P:
    """The problems at these places: a table of a table, a list of a list."""
    if isinstance(problems, ProblemTable):
        return problems.take(rows)  # type: ignore[return-value]
    return type(problems)(problems[row] for row in rows)  # type: ignore[call-arg]


def data_cache(config: Config) -> Path:
    """Where tables are kept: beside the runs, where all nodes see them."""
    return Path(config.output.root).expanduser().resolve() / "data_cache"


def load_table(config: DataConfig, split: Split, cache: Path) -> ProblemTable:
    """The problems that ``load_problems`` gives, as a table. It is made unless the cache has it.

    Raises:
        DataError, ConfigError: as load_problems, or the cache cannot be written.
    """
    settings = config.model_dump(exclude={"train_split", "eval_split", "arithmetic"})
    split_name = split_expression(config, split)
    content = [_sources_digest(_PROBLEM_CODE), settings, split, split_name, source_digest(config, split)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / digest / "problems.arrow"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output.root must be writable, got {cache.parent}: {error.strerror}.") from None
    with _made_once(path) as hidden:
        if hidden:
            for left in path.parent.glob(".rows-*"):
                shutil.rmtree(left, ignore_errors=True)
            problems = iter_problems(config, split, scratch=path.parent)
            write_batches(hidden, _PROBLEMS, _problem_batches(problems))
    return ProblemTable(path, digest, np.zeros(0, np.int64)).whole()


@contextmanager
def new_tokens(
    problems: ProblemTable, model: Path, *, chat: bool, code: Path
) -> Iterator[tuple[TokenTable, Path | None]]:
    """The tokens of all rows of the table's file, and the path to write them to; None when they are there already.

    Args:
        model: directory with the tokenizer's files.
        chat: prompts go through its chat template.
        code: the file of what encodes them. When it changes they are made again.
    """
    made_by = _sources_digest([*_TOKEN_CODE, code])
    digest = hashlib.sha256(f"{made_by} {problems.table_digest} {chat}".encode())
    for library in ("transformers", "tokenizers"):
        digest.update(importlib.metadata.version(library).encode())
    for file in sorted(file for file in model.iterdir() if file.suffix in _TOKENIZER_FILES and file.is_file()):
        digest.update(f"{file.name} {sha256(file)}".encode())
    path = problems.path.with_name(f"tokens_{digest.hexdigest()[:16]}.arrow")
    with _made_once(path) as hidden:
        yield TokenTable(path), hidden


def _sources_digest(files: Sequence[Path]) -> str:
    """Of source code that decides what is stored: data made by other code is made again."""
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


@contextmanager
def _made_once(path: Path) -> Iterator[Path | None]:
    """A hidden path to write to, which then becomes ``path``; None when a whole file is there.

    Only one process makes it, and others wait. What a killed one left half-made is deleted.
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
    """Arrow writes the footer last: where it can be read, nothing before it is missing."""
    try:
        _ArrowRows(path)
    except (OSError, ValueError, pa.ArrowException):  # ValueError: it is empty
        return False
    return True


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _problem_batches(problems: Iterator[Problem]) -> Iterator[pa.RecordBatch]:
    while chunk := list(islice(problems, ROWS_PER_BATCH)):
        columns = [pa.array([getattr(p, field.name) for p in chunk], field.type) for field in _PROBLEMS]
        yield pa.record_batch(columns, schema=_PROBLEMS)


class _ArrowRows:
    """Rows of an Arrow file that is mapped into memory for as long as this is alive."""

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
        return self.all_batches[index].slice(row - self._start(index), 1).to_pylist()[0]

    def batches(self, rows: np.ndarray, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """These rows in this order, in as many batches as it takes: runs in one batch of the file stay together."""
        of_batch = np.searchsorted(self._ends, rows, side="right")
        bounds = np.flatnonzero(np.diff(of_batch, prepend=-1, append=-1))
        for start, stop in pairwise(bounds):
            index = int(of_batch[start])
            batch = self.all_batches[index]
            yield (batch.select(columns) if columns else batch).take(pa.array(rows[start:stop] - self._start(index)))

    def _start(self, index: int) -> int:
        return int(self._ends[index]) - self.all_batches[index].num_rows


def _problem(row: dict[str, Any]) -> Problem:
    return Problem(**{**row, "prompt": tuple(row["prompt"])})


def _interned(text: str | None) -> str | None:
    """Few levels and types have many problems: one object each."""
    return None if text is None else sys.intern(text)


def _lengths(lists: pa.ListArray) -> np.ndarray:
    return np.diff(lists.offsets.to_numpy()).astype(np.int32)
