"""A target difficulty that moves with the solve rate, and the problems nearest to it.

Source: AdaRFT, arXiv:2504.05520.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.samplers import TargetDifficultyConfig
from pipeline.curriculum.samplers.base import Outcome, Rows, generator, nearest
from pipeline.curriculum.samplers.history import NEVER, History


class TargetDifficulty:
    """
    Args:
        difficulties: [num_rows], in [0, 1], by level.
        rows: to choose from.
    """

    def __init__(
        self,
        settings: TargetDifficultyConfig,
        history: History,
        difficulties: npt.NDArray[np.float64],
        rows: Rows,
        *seed: object,
    ) -> None:
        self._settings, self._history, self._by_level = settings, history, difficulties
        self._rows, self._seed = rows, seed
        self.target = settings.start

    def choose(self, step: int, count: int) -> list[int]:
        random = generator(*self._seed, step, "target")
        return nearest(np.abs(self._difficulties() - self.target), self._rows, count, random)

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None:
        rates = [each.solve_rate for each in outcomes if each.num_completions]
        if rates:
            surplus = fmean(rates) - self._settings.target_rate
            move = self._settings.step_size * math.tanh(self._settings.sensitivity * surplus)
            self.target = min(max(self.target + move, 0.0), 1.0)

    def _difficulties(self) -> npt.NDArray[np.float64]:
        if self._settings.difficulty == "level":
            return self._by_level
        is_tried = self._history.step[self._rows] > NEVER
        return np.where(is_tried, 1 - self._history.solve_rate[self._rows], self._by_level)

    def state(self) -> dict[str, Any]:
        return {"target": self.target}

    def load(self, state: dict[str, Any]) -> None:
        self.target = state["target"]
