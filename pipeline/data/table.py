"""Problems and their tokens in Arrow files, read where they are needed.

A data set is made into a table once, under ``data_cache/<digest>/`` of ``output.root``, and its tokens once for each
tokenizer. Both files are written under hidden names and renamed when they are whole, so an existing file is complete.
No process holds all rows: they are written in batches and mapped into memory when they are read.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import fields, templates
from pipeline.config import Config, DataConfig
from pipeline.data import answers, arrow_files, local_sets, sources, writing
from pipeline.data import problems as problems_module
from pipeline.data import rows as rows_module
from pipeline.data.arrow_files import ROWS_PER_BATCH, ArrowRows, code_digest, made_once, write_batches
from pipeline.data.problems import iter_problems
from pipeline.data.sources import source_digest, split_expression
from pipeline.errors import ConfigError
from pipeline.types import Message, Problem, ProblemHead, SplitName, WritingTask

Problems = TypeVar("Problems", bound=Sequence[Problem])

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PROBLEMS = pa.schema(
    [("id", pa.string()), ("prompt", _MESSAGES), ("gold", pa.string()), ("solution", pa.string())]
    + [(name, pa.string()) for name in ("level", "type", "source", "prompt_text")]
    + [("learns_all_turns", pa.bool_())]
    + [("writing", pa.struct([(name, pa.string()) for name in ("kind", "original", "original_answer")]))]
)


class ProblemTable(Sequence[Problem]):
    """Problems that stay in a file. Pickled as a path and row numbers; the file is opened on first use."""

    def __init__(self, path: Path, table_digest: str, rows: np.ndarray) -> None:
        """
        Args:
            table_digest: identifies the data: its settings and its source, but not the code that reads it.
            rows: [num_problems] int64, row numbers in the file.
        """
        self.path, self.table_digest, self.rows = path, table_digest, rows
        self._file: ArrowRows | None = None

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
            self._file = ArrowRows(self.path)
        return _problem(self._file.row(int(self.rows[index])))

    def __iter__(self) -> Iterator[Problem]:
        for batch in ArrowRows(self.path).batches(self.rows):
            yield from map(_problem, batch.to_pylist())

    def whole(self) -> "ProblemTable":
        """All rows of the file."""
        return ProblemTable(self.path, self.table_digest, np.arange(ArrowRows(self.path).num_rows))

    def take(self, rows: Sequence[int] | np.ndarray) -> "ProblemTable":
        """The problems at these positions, in this order."""
        return ProblemTable(self.path, self.table_digest, self.rows[np.asarray(rows, dtype=np.int64)])

    def heads(self) -> Iterator[ProblemHead]:
        """The attributes that problems are chosen by, without their texts."""
        row = 0
        for batch in ArrowRows(self.path).batches(self.rows, ["id", "level", "type", "source", "solution"]):
            has_solution = batch["solution"].is_valid().to_pylist()
            columns = (map(_interned, batch[name].to_pylist()) for name in ("level", "type", "source"))
            for id, level, type, source, solved in zip(batch["id"].to_pylist(), *columns, has_solution, strict=True):
                yield ProblemHead(row, id, level, type, source, solved)
                row += 1

    @property
    def digest(self) -> str:
        """16 hex digits over the table and the chosen rows."""
        return hashlib.sha256(self.table_digest.encode() + self.rows.tobytes()).hexdigest()[:16]


def heads(problems: Sequence[Problem]) -> Iterator[ProblemHead]:
    """The heads of a table or of any other sequence of problems."""
    if isinstance(problems, ProblemTable):
        yield from problems.heads()
    else:
        for row, p in enumerate(problems):
            yield ProblemHead(row, p.id, p.level, p.type, p.source, p.solution is not None)


def take(problems: Problems, rows: Sequence[int]) -> Problems:
    """The problems at these positions: a table from a table, a list from a list."""
    if isinstance(problems, ProblemTable):
        return problems.take(rows)  # type: ignore[return-value]
    return type(problems)(problems[row] for row in rows)  # type: ignore[call-arg]


def num_shared(problems: ProblemTable, held_out: Sequence[Problem]) -> int:
    """The number of held-out problems whose prompt is also a training problem's."""
    questions = pa.array({problem.question for problem in held_out}, pa.string())
    shared: set[tuple[tuple[str, str], ...]] = set()
    for batch in ArrowRows(problems.path).batches(problems.rows, ["prompt"]):
        prompts = batch["prompt"]
        is_asked = pc.is_in(_questions(prompts), questions)
        shared.update(map(_prompt_key, prompts.filter(is_asked).to_pylist()))
    return sum(_prompt_key(problem.prompt) in shared for problem in held_out)


def described(problems: ProblemTable) -> Iterator[pa.RecordBatch]:
    """Id, level, type, source, question and gold answer of every problem, as arrow's columns."""
    names = ["id", "level", "type", "source"]
    for batch in ArrowRows(problems.path).batches(problems.rows, [*names, "prompt", "gold"]):
        columns = [*(batch[name] for name in names), _questions(batch["prompt"]), batch["gold"]]
        yield pa.record_batch(columns, [*names, "question", "gold"])


def _questions(prompts: pa.ListArray) -> pa.Array:
    """The last message of every prompt."""
    ends = np.cumsum(prompts.value_lengths().to_numpy()) - 1
    return prompts.flatten().field("content").take(pa.array(ends))


def _prompt_key(prompt: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in prompt)


def data_cache(config: Config) -> Path:
    """The directory of tables: beside the runs, where all nodes see it."""
    return Path(config.output.root).expanduser().resolve() / "data_cache"


def load_table(config: DataConfig, split: SplitName, cache: Path) -> ProblemTable:
    """The problems of ``load_problems`` as a table, which is made unless the cache has it.

    Raises:
        DataError, ConfigError: as load_problems, or the cache cannot be written.
    """
    settings = config.model_dump(exclude={"train_split", "eval_split", "arithmetic", "layout", "revision"})
    if config.write is None:  # newer than the digests, which stage keys of old searches hold
        del settings["write"]
    if config.fields.source is None:  # likewise
        del settings["fields"]["source"]
    if config.layout == "conversations":  # other layouts only name fields
        settings["layout"] = config.layout
    split_name = split_expression(config, split)
    content = [settings, split, split_name, source_digest(config, split)]
    modules = (answers, arrow_files, fields, local_sets, problems_module, rows_module, sources, templates, writing)
    made_by = code_digest(*(module.__file__ for module in modules), __file__)
    path = cache / _digest([made_by, *content]) / "problems.arrow"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output.root must be writable, got {cache.parent}: {error.strerror}.") from None
    with made_once(path) as hidden:
        if hidden:
            write_batches(hidden, _PROBLEMS, _problem_batches(iter_problems(config, split)))
    return ProblemTable(path, _digest(content), np.zeros(0, np.int64)).whole()


def save_table(directory: Path, digest: str, problems: Sequence[Problem]) -> ProblemTable:
    """Problems that come from no data set, as a table. It is not written again if it exists.

    Args:
        digest: identifies the problems.
    """
    path = directory / "problems.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    with made_once(path) as hidden:
        if hidden:
            write_batches(hidden, _PROBLEMS, _problem_batches(iter(problems)))
    return ProblemTable(path, digest, np.zeros(0, np.int64)).whole()


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _problem_batches(problems: Iterator[Problem]) -> Iterator[pa.RecordBatch]:
    while chunk := list(islice(problems, ROWS_PER_BATCH)):
        rows = [{**{name: getattr(p, name) for name in _PROBLEMS.names}, "writing": _as_struct(p)} for p in chunk]
        columns = [pa.array([row[field.name] for row in rows], field.type) for field in _PROBLEMS]
        yield pa.record_batch(columns, schema=_PROBLEMS)


def _problem(row: dict[str, Any]) -> Problem:
    writing = row["writing"] and WritingTask(**row["writing"])
    return Problem(**{**row, "prompt": tuple(row["prompt"]), "writing": writing})


def _as_struct(problem: Problem) -> dict[str, str | None] | None:
    return asdict(problem.writing) if problem.writing else None


def _interned(text: str | None) -> str | None:
    """One object for equal texts: many problems share a few levels and types."""
    return None if text is None else sys.intern(text)
