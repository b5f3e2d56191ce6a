"""The data of a run's page, read piece by piece while the run writes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.reports.accuracy import with_intervals
from pipeline.run_page.completions import stored_steps
from pipeline.runs.atlas import Atlas, Visit, never_tried, num_judged
from pipeline.runs.ledger import USED, LedgerFiles, LedgerRow
from pipeline.runs.metrics_log import metrics_path
from pipeline.runs.problem_record import FIELDS, read_problems, recorded_stages
from pipeline.runs.records import Row, number, parse_row, read_evaluations
from pipeline.runs.tail import Tail

MAX_UNTRIED = 20_000
"""Problems that were never tried, on the page. metrics/problems.parquet has all."""
GROUP_FIELDS = (
    *("problem", "step", "stage", "solved", "attempts", "truncated", "tokens", "reward_mean", "reward_std", "use"),
    *("mean", "low", "high", "position", "is_stored"),
)
"""Columns of a group on the page. ``problem`` is its place in the list of problems; mean, low and high are those of the
problem after the step; ``position`` is that in the batch."""
PROBLEM_FIELDS = (
    *("problem_id", "label", "last_step", "mean", "low", "high", "best", "attempts", "solved"),
    *("level", "type", "source", "question", "gold"),
)


@dataclass(frozen=True)
class Cursor:
    """The part of a run that a page has."""

    generation: int = 0
    metrics: int = 0
    groups: int = 0
    problems: int = 0
    evaluations: int = 0


class RunState:
    """Steps that are whole: their row of metrics is written last.

    A run that is resumed first drops what it repeats. Then everything is read again, under a new ``generation``.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.generation = 0
        self._begin()

    def _begin(self) -> None:
        self._metrics_tail = Tail(metrics_path(self.run_dir))
        self._ledger = LedgerFiles(self.run_dir)
        self._atlas = Atlas()
        self._known: dict[str, Row] = {}
        self._num_recorded = 0
        self._indexes: dict[str, int] = {}
        self._changed_at: list[int] = []
        """Number of groups at every problem's last change."""
        self._rows: list[LedgerRow] = []
        """Those of ``groups``."""
        self.metrics: list[Row] = []
        self.problems: list[Row] = []
        self.groups: list[list[Any]] = []
        """As on the page, but for ``is_stored``."""
        self.evaluations: list[Row] = []

    def read(self) -> None:
        """Take up what is new.

        Raises:
            CheckpointError: a file is corrupt, or was removed while it was read.
        """
        if self._take_up():
            return
        self.generation += 1
        self._begin()
        if not self._take_up():
            self._begin()
            raise CheckpointError(
                f"{metrics_path(self.run_dir)} must have every step once, in order, but repeats some: it is corrupt."
            )

    def _take_up(self) -> bool:
        """False: the run repeats what was read before."""
        for row in map(parse_row, self._metrics_tail.poll()):
            if row is None or not isinstance(row.get("step"), int):
                continue
            if self.metrics and row["step"] <= self.metrics[-1]["step"]:
                return False
            self.metrics.append(_numbers(row))
        self.evaluations = [with_intervals(evaluation) for evaluation in read_evaluations(self.run_dir)]
        rows = self._ledger.read()
        count = len(self.groups)
        if len(rows) < count or (count and rows[count - 1] != self._rows[-1]):
            return False
        last_step = self.metrics[-1]["step"] if self.metrics else 0
        new = list(takewhile(lambda row: row.step <= last_step, rows[count:]))
        self._read_problems(bool(rows))
        self._add(new)
        return True

    def _read_problems(self, has_ledger: bool) -> None:
        num_recorded = len(recorded_stages(self.run_dir))
        if num_recorded == self._num_recorded and (self._known or num_recorded or not has_ledger):
            return
        self._num_recorded = num_recorded
        self._known = read_problems(self.run_dir)
        untried = [problem_id for problem_id in self._known if problem_id not in self._indexes]
        room = max(0, MAX_UNTRIED - len(self.problems))
        for problem_id in untried[:room]:
            self._add_problem(problem_id)

    def _add_problem(self, problem_id: str) -> int:
        known = self._known.get(problem_id, {})
        described = {name: known.get(name) for name in FIELDS[1:]}
        visit = never_tried(problem_id)
        self._indexes[problem_id] = len(self.problems)
        self.problems.append({**_summary(visit), **described, "attempts": 0, "solved": 0})
        self._changed_at.append(len(self.groups))
        return len(self.problems) - 1

    def _add(self, rows: Sequence[LedgerRow]) -> None:
        visits = {(visit.problem_id, visit.stage, visit.step): visit for visit in self._atlas.add(rows)}
        self._rows += rows
        for row in rows:
            index = self._indexes.get(row.problem_id)
            index = self._add_problem(row.problem_id) if index is None else index
            visit = visits.get((row.problem_id, row.stage, row.step)) if num_judged(row) else None
            self.groups.append(_group(index, row, visit))
            self._changed_at[index] = len(self.groups)
            if visit:
                problem = self.problems[index]
                problem["attempts"] += num_judged(row)
                problem["solved"] += row.num_correct
                problem.update(_summary(visit))

    @property
    def num_untried_left_out(self) -> int:
        """Known problems that are not on the page. One that is tried joins it."""
        return len(self._known.keys() - self._indexes.keys())

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.generation, len(self.metrics), len(self.groups), len(self.problems), len(self.evaluations))

    def since(self, cursor: Cursor) -> Row:
        """The rows that a page with ``cursor`` lacks. Changed problems come again, whole."""
        groups, rows = self.groups[cursor.groups :], self._rows[cursor.groups :]
        stored = stored_steps(self.run_dir) if groups else set()
        return {
            "metrics": self.metrics[cursor.metrics :],
            "groups": [
                [*group, row.use in USED and row.step in stored] for group, row in zip(groups, rows, strict=True)
            ],
            "problems": {
                index: problem
                for index, problem in enumerate(self.problems)
                if index >= cursor.problems or self._changed_at[index] > cursor.groups
            },
            "evaluations": [
                {"name": evaluation["name"], "step": evaluation["step"], **evaluation["overall"]}
                for evaluation in self.evaluations
            ],
        }


def _numbers(row: Row) -> Row:
    """The numbers of a row of metrics, and its stage and kind."""
    numbers = {key: value for key in row if key != "time" and (value := number(row, key)) is not None}
    return {**numbers, "stage": str(row.get("stage")), "kind": str(row.get("kind"))}


def _summary(visit: Visit) -> Row:
    numbers = {name: _rounded(getattr(visit, name)) for name in ("mean", "low", "high", "best")}
    return {"problem_id": visit.problem_id, "label": visit.label, "last_step": visit.step, **numbers}


def _group(index: int, row: LedgerRow, visit: Visit | None) -> list[Any]:
    judged = (row.num_correct, num_judged(row)) if visit else (0, 0)
    posterior = (visit.mean, visit.low, visit.high) if visit else (None, None, None)
    return [
        *(index, row.step, row.stage, *judged, row.num_truncated, row.num_tokens),
        *(_rounded(row.reward_mean), _rounded(row.reward_std), row.use),
        *(*map(_rounded, posterior), row.position),
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
