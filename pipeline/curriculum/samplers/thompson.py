"""Thompson sampling: draws each problem's solve rate from a posterior that forgets, and asks those nearest to a target.

Source: BOTS, arXiv:2510.26374, without its evidence from similar problems.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.samplers import ThompsonConfig
from pipeline.curriculum.samplers.base import Outcome, Rows, generator, nearest

Floats = npt.NDArray[np.float64]


class Thompson:
    """A Beta posterior of each solve rate. Evidence is what was counted, in completions, beyond the prior. It fades
    with every step, whether or not the problem was asked.

    Args:
        num_problems: of the stage.
        rows: to choose from.
    """

    def __init__(self, settings: ThompsonConfig, num_problems: int, rows: Rows, *seed: object) -> None:
        self._settings, self._rows, self._seed = settings, rows, seed
        self._correct, self._wrong = np.zeros(num_problems), np.zeros(num_problems)
        self._step = np.zeros(num_problems, np.int64)
        """Step of the evidence."""

    def posterior(self, step: int, rows: Rows) -> tuple[Floats, Floats]:
        """Both parameters of each row's Beta distribution, as they are at a step."""
        kept = (1 - self._settings.forgetting) ** np.maximum(step - self._step[rows], 0)
        return (
            self._settings.prior_correct + kept * self._correct[rows],
            self._settings.prior_wrong + kept * self._wrong[rows],
        )

    def choose(self, step: int, count: int) -> list[int]:
        random = generator(*self._seed, step, "thompson")
        drawn = random.beta(*self.posterior(step, self._rows))
        return nearest(np.abs(drawn - self._settings.target_rate), self._rows, count, random)

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None:
        for each in outcomes:
            if each.row is None or not each.num_completions:
                continue
            kept = (1 - self._settings.forgetting) ** max(step - int(self._step[each.row]), 0)
            num_correct = each.solve_rate * each.num_completions
            self._correct[each.row] = kept * self._correct[each.row] + num_correct
            self._wrong[each.row] = kept * self._wrong[each.row] + each.num_completions - num_correct
            self._step[each.row] = step

    def state(self) -> dict[str, Any]:
        rows = np.flatnonzero(self._correct + self._wrong)
        columns = {"correct": self._correct, "wrong": self._wrong, "step": self._step}
        return {"rows": rows.tolist(), **{name: column[rows].tolist() for name, column in columns.items()}}

    def load(self, state: dict[str, Any]) -> None:
        for name, column in (("correct", self._correct), ("wrong", self._wrong), ("step", self._step)):
            column[state["rows"]] = state[name]
