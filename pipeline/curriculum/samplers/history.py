"""The latest outcomes of every problem that a stage has asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.curriculum.samplers.base import Outcome, Rows

NEVER = -1
_COLUMNS = ("step", "solve_rate", "best_rate")


class History:
    """The latest outcome of each problem, and its best solve rate.

    Attributes, each [num_problems]:
        step: the last step that asked the problem and graded a completion, or ``NEVER``.
        solve_rate: in that step; 0 if there was none.
        best_rate: its highest solve rate so far.
    """

    def __init__(self, num_problems: int) -> None:
        self.step = np.full(num_problems, NEVER, np.int64)
        self.solve_rate, self.best_rate = np.zeros(num_problems), np.zeros(num_problems)

    @property
    def tried(self) -> Rows:
        """Rows of the problems that were asked, and graded."""
        return np.flatnonzero(self.step > NEVER)

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None:
        for each in outcomes:
            if each.row is not None and each.num_completions:
                self.step[each.row] = step
                self.solve_rate[each.row] = each.solve_rate
                self.best_rate[each.row] = max(self.best_rate[each.row], each.solve_rate)

    def forgotten(self) -> Rows:
        """Rows of the problems whose solve rate is below its best, the largest fall first."""
        fall = self.best_rate - self.solve_rate
        rows = np.flatnonzero(fall > 0)
        return rows[np.argsort(-fall[rows], kind="stable")]

    def state(self) -> dict[str, Any]:
        tried = self.tried
        return {"rows": tried.tolist(), **{name: getattr(self, name)[tried].tolist() for name in _COLUMNS}}

    def load(self, state: dict[str, Any]) -> None:
        for name in _COLUMNS:
            getattr(self, name)[state["rows"]] = state[name]
