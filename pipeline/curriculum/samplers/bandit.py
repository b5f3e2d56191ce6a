"""A bandit over categories: those with large advantages are asked more often.

Source: SEC, arXiv:2505.14970.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from pipeline.config.samplers import BanditConfig
from pipeline.curriculum.samplers.base import Outcome
from pipeline.curriculum.samplers.uniform import Categories


class Bandit:
    """A category's value is a moving mean, over the steps that asked it, of the mean absolute advantage.

    Args:
        rows_of: each category's rows.
    """

    def __init__(self, settings: BanditConfig, rows_of: Mapping[str, Sequence[int]], *seed: object) -> None:
        self._settings = settings
        self._categories = Categories(rows_of, *seed)
        self._category_of = {int(row): name for name, rows in rows_of.items() for row in rows}
        self.values = dict.fromkeys(rows_of, 0.0)

    def choose(self, step: int, count: int) -> list[int]:
        return self._categories.choose(step, count, self.probabilities())

    def probabilities(self) -> list[float]:
        """One per category: the softmax of its value."""
        values = np.array(list(self.values.values())) / self._settings.temperature
        weights = np.exp(values - values.max())
        probabilities: list[float] = (weights / weights.sum()).tolist()
        return probabilities

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None:
        advantages: dict[str, list[float]] = {}
        for each in outcomes:
            if each.row is not None and each.num_completions:
                advantages.setdefault(self._category_of[each.row], []).append(each.mean_abs_advantage)
        share = self._settings.learning_rate
        for name, own in advantages.items():
            self.values[name] += share * (fmean(own) - self.values[name])

    def state(self) -> dict[str, Any]:
        return {"values": self.values, "walks": self._categories.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.values = dict(state["values"])
        self._categories.load(state["walks"])
