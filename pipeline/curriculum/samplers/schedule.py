"""A schedule over levels: easy ones fade out over the stage.

Source: E2H, arXiv:2506.06632.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.samplers import ScheduleConfig
from pipeline.curriculum.samplers.base import Outcome, StageLength
from pipeline.curriculum.samplers.uniform import Categories


class Schedule:
    """
    Args:
        rows_of: each level's rows, easiest level first.
        length: of the stage.
    """

    def __init__(
        self, settings: ScheduleConfig, rows_of: Mapping[str, Sequence[int]], length: StageLength, *seed: object
    ) -> None:
        self._settings, self._length = settings, length
        self._levels = Categories(rows_of, *seed)

    def choose(self, step: int, count: int) -> list[int]:
        weights = level_weights(self._settings, len(self._levels.walks), self._length.done(step))
        return self._levels.choose(step, count, weights)

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None: ...

    def state(self) -> dict[str, Any]:
        return self._levels.state()

    def load(self, state: dict[str, Any]) -> None:
        self._levels.load(state)


def level_weights(settings: ScheduleConfig, num_levels: int, done: float) -> list[float]:
    """Weights of the levels, easiest first, summing to 1.

    Args:
        done: share of the stage that is over, in [0, 1].
    """
    if num_levels == 1:
        return [1.0]
    if settings.shape == "cosine":
        easy = (1 + math.cos(math.pi * done)) / 2
        weights = [easy * (num_levels - 1 - level) + (1 - easy) * level for level in range(num_levels)]
    else:
        centre = done**settings.exponent * (num_levels - 1)
        exponents = [-(((level - centre) / settings.sigma) ** 2) / 2 for level in range(num_levels)]
        weights = [math.exp(exponent - max(exponents)) for exponent in exponents]  # a narrow bell must reach one level
    return [weight / sum(weights) for weight in weights]
