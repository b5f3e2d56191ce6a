"""The latest outcomes of every problem that a stage has asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.curriculum.samplers.base import Outcome, Rows

NEVER = -1
FADE = 0.25
"""Share of its distance to the solve rate by which a best rate fades whenever the problem is asked again: a problem
that stays below its best is asked a few times more, and then given up."""
_COLUMNS = ("step", "solve_rate", "best_rate", "has_fallen")


class History:
    """The latest outcome of each problem, and its best solve rate.

    Args:
        best_rates: of each problem before the stage; 0 if it was not measured.

    Attributes, each [num_problems]:
        step: the last step that asked the problem and graded a completion, or ``NEVER``.
        solve_rate: in that step; 0 if there was none.
        best_rate: its highest solve rate, which fades by ``FADE``.
        has_fallen: the solve rate was below the best one by more than chance.
    """

    def __init__(self, best_rates: Sequence[float]) -> None:
        self.best_rate = np.array(best_rates, np.float64)
        self.step = np.full(len(best_rates), NEVER, np.int64)
        self.solve_rate, self.has_fallen = np.zeros(len(best_rates)), np.zeros(len(best_rates), np.bool_)

    @property
    def tried(self) -> Rows:
        """Rows of the problems that were asked, and graded."""
        return np.flatnonzero(self.step > NEVER)

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None:
        for each in outcomes:
            if each.row is not None and each.num_completions:
                best = self.best_rate[each.row]
                if self.step[each.row] > NEVER:
                    best -= FADE * (best - self.solve_rate[each.row])
                self.step[each.row] = step
                self.solve_rate[each.row] = each.solve_rate
                self.best_rate[each.row] = max(best, each.solve_rate)
                self.has_fallen[each.row] = is_fall(best, each.solve_rate, each.num_completions)

    def forgotten(self) -> Rows:
        """Rows of the problems whose solve rate has fallen, the largest fall first."""
        rows = np.flatnonzero(self.has_fallen)
        fall = self.best_rate[rows] - self.solve_rate[rows]
        return rows[np.argsort(-fall, kind="stable")]

    def state(self) -> dict[str, Any]:
        tried = self.tried
        return {"rows": tried.tolist(), **{name: getattr(self, name)[tried].tolist() for name in _COLUMNS}}

    def load(self, state: dict[str, Any]) -> None:
        for name in _COLUMNS:
            if name in state:  # an earlier version did not keep has_fallen
                getattr(self, name)[state["rows"]] = state[name]


def is_fall(before: float, after: float, num_completions: int) -> bool:
    """True if one solve rate is below another by more than two standard errors of their difference.

    Both are of so many completions. One right and one wrong completion are added to each, so that rates of 0 and 1
    have an error, too.
    """
    smoothed = [(rate * num_completions + 1) / (num_completions + 2) for rate in (before, after)]
    variance = sum(rate * (1 - rate) for rate in smoothed) / num_completions
    return bool(before - after > 2 * variance**0.5)
