"""``eval_results.jsonl``: one row per completion, in a fixed order, so that an evaluation can resume after a kill."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import CheckpointError
from pipeline.evaluation.problems import EvalProblem
from pipeline.files import append_jsonl, hidden_name

RESULTS_FILE = "eval_results.jsonl"
COLUMNS = {
    "model": "string", "dataset": "string", "problem_id": "string", "sample": "int32",
    "level": "string", "type": "string", "source": "string", "difficulty": "string",
    "question": "string", "prompt": "string", "completion": "string", "answer": "string", "gold": "string",
    "outcome": "string", "method": "string", "strict": "bool", "symbolic": "bool", "numeric": "bool",
    "num_prompt_tokens": "int32", "num_tokens": "int32", "seconds": "float64", "in_training_data": "string",
}  # fmt: skip
"""Columns of a row and of the parquet file, in order, with their types. Their meanings: docs/evaluation.md."""
TEXTS = ("question", "prompt", "completion")
_BATCH_ROWS = 1000


class Chunk(NamedTuple):
    """Problems that go to an engine together."""

    model: str
    dataset: str
    problems: tuple[EvalProblem, ...]

    def keys(self, num_samples: int) -> list[tuple[str, str, str, int]]:
        """(model, data set, problem id, sample) of its rows, in order."""
        return [
            (self.model, self.dataset, problem.id, sample) for problem in self.problems for sample in range(num_samples)
        ]


class RowsFile:
    """A file of JSON rows that is only appended to. Only its last line can be half-written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Returns once the rows are on disk. Raises CheckpointError if they cannot be written."""
        try:
            append_jsonl(self.path, rows)
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"results cannot be written to {self.path}: {error.strerror or error}. Earlier results are kept: "
                "free some space, then continue with --resume."
            ) from None

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, without a last line that was cut short. Raises CheckpointError on any other broken line."""
        for row, _ in self.lines():
            yield row

    def lines(self) -> Iterator[tuple[dict[str, Any], int]]:
        """(row, file position of the end of its line)."""
        if not self.path.exists():
            return
        position = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                position += len(line)
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    raise CheckpointError(f"{self.path} line {number} must be a JSON object: the file is corrupt.")
                yield row, position

    def cut(self, size: int) -> None:
        """Cut off what is beyond ``size`` bytes."""
        if self.path.exists() and self.path.stat().st_size > size:
            os.truncate(self.path, size)


class ResultsFile(RowsFile):
    """The rows of an evaluation, in whole chunks."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / RESULTS_FILE)

    def light_rows(self) -> list[dict[str, Any]]:
        """All rows without their texts."""
        return [{key: value for key, value in row.items() if key not in TEXTS} for row in self.rows()]

    def num_done(self, chunks: Sequence[Chunk], num_samples: int) -> int:
        """Number of chunks that are complete in the file. Rows after them are cut off.

        Raises:
            CheckpointError: the file holds rows that do not belong to these chunks.
        """
        done = end = position = 0
        lines = self.lines()
        for chunk in chunks:
            for key in chunk.keys(num_samples):
                row, position = next(lines, (None, position))
                if row is None:
                    self.cut(end)
                    return done
                if (row.get("model"), row.get("dataset"), row.get("problem_id"), row.get("sample")) != key:
                    raise CheckpointError(
                        f"{self.path} must hold the results of this evaluation, got a row of {row.get('problem_id')} "
                        f"where {key[2]} belongs: the data set has changed. Start a new evaluation."
                    )
            done, end = done + 1, position
        if next(lines, None):
            raise CheckpointError(f"{self.path} must hold each result once, got more rows than results.")
        self.cut(end)
        return done

    def write_parquet(self, folder: Path) -> None:
        """Write the same rows as a parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"string": pa.string(), "int32": pa.int32(), "float64": pa.float64(), "bool": pa.bool_()}
        schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
        target = (folder / RESULTS_FILE).with_suffix(".parquet")
        hidden = hidden_name(target)
        try:
            with pq.ParquetWriter(hidden, schema) as writer:
                batch: list[dict[str, Any]] = []
                for row in self.rows():
                    batch.append(row)
                    if len(batch) == _BATCH_ROWS:
                        writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                        batch = []
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            os.replace(hidden, target)
        finally:
            hidden.unlink(missing_ok=True)
