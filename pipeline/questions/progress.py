"""Progress of a generation. Rows are stored in whole chunks, so it can resume after a kill."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.evaluation.results import RowsFile
from pipeline.questions.filters import Keeper
from pipeline.questions.quotas import Cell, Quotas, next_tasks
from pipeline.questions.rows import Row
from pipeline.questions.tasks import Tasks
from pipeline.types import Problem

SCORED_FILE = "scored.jsonl"
"""Scored rows, not yet judged."""


class Progress:
    """Rounds of tasks, divided into chunks. Each round has as many tasks as it takes at the share kept so far.

    A round depends only on the rows judged before it, so a resumed generation asks for the same tasks.

    Args:
        directory: holds SCORED_FILE. Its rows are replayed first; anything after the last whole chunk is cut off.
        num_samples, max_written: as for ``next_tasks``.
    """

    def __init__(
        self,
        directory: Path,
        tasks: Tasks,
        quotas: Quotas,
        keeper: Keeper,
        *,
        chunk_size: int,
        num_samples: int,
        max_written: int,
    ) -> None:
        self._file = RowsFile(directory / SCORED_FILE)
        self._tasks, self._quotas, self._keeper = tasks, quotas, keeper
        self._chunk_size, self._num_samples, self._max_written = chunk_size, num_samples, max_written
        self._turns = Counter[Cell]()
        self._pending: list[list[Problem]] = []
        self.rows: list[Row] = []
        """All written problems, judged."""
        self._replay()

    @property
    def num_kept(self) -> int:
        return sum(row["is_kept"] for row in self.rows)

    def pending(self) -> Sequence[list[Problem]]:
        """Chunks of tasks to do next; empty once the generation is complete."""
        if not self._pending:
            cells = next_tasks(self._quotas, self.rows, self._num_samples, self._max_written)
            first = sum(self._turns.values())
            tasks = [self._task(cell, index) for index, cell in enumerate(cells, first)]
            self._pending = [tasks[i : i + self._chunk_size] for i in range(0, len(tasks), self._chunk_size)]
        return tuple(self._pending)

    def add(self, rows: Sequence[Row]) -> int:
        """Record and judge the rows of the first pending chunk. Returns the number of rows kept."""
        self._file.append(rows)
        return self._judge(rows)

    def _task(self, cell: Cell, index: int) -> Problem:
        self._turns[cell] += 1
        return self._tasks.task(cell, index, self._turns[cell] - 1)

    def _judge(self, rows: Sequence[Row]) -> int:
        self._pending.pop(0)
        judged = [self._keeper.judged(row) for row in rows]
        self.rows += judged
        return sum(row["is_kept"] for row in judged)

    def _replay(self) -> None:
        recorded, done, end = list(self._file.lines()), 0, 0
        while chunks := self.pending():
            part = recorded[done : done + len(chunks[0]) * self._num_samples]
            if len(part) < len(chunks[0]) * self._num_samples:
                break
            rows = [row for row, _ in part]
            self._check(rows, chunks[0])
            self._judge(rows)
            done, end = done + len(part), part[-1][1]
        self._file.cut(end)

    def _check(self, rows: Sequence[Row], tasks: Sequence[Problem]) -> None:
        for index, row in enumerate(rows):
            expected = f"{tasks[index // self._num_samples].id}-{index % self._num_samples}"
            if row.get("id") != expected:
                raise CheckpointError(
                    f"{self._file.path} must hold the rows of this generation, got {row.get('id')} where {expected} "
                    "belongs. Start a new generation."
                )
