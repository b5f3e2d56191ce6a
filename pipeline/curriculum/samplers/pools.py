"""Pools: easy, middle and hard problems by their latest solve rate, drawn by weights; solved ones are retired."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config.samplers import PoolsConfig
from pipeline.curriculum.samplers.base import Outcome, Rows, deal, generator
from pipeline.curriculum.samplers.history import NEVER, History


class Pools:
    """Draws from three pools without repeats within a choice.

    Where a pool has too few problems, the other pools fill the gap. If all pools together have too few, retired
    problems do, those asked longest ago first.
    """

    def __init__(self, settings: PoolsConfig, history: History, rows: Rows, *seed: object) -> None:
        self._settings, self._history, self._rows, self._seed = settings, history, rows, seed

    def pools(self, step: int) -> tuple[Rows, Rows, Rows, Rows]:
        """Rows of the easy, middle, hard and retired problems."""
        settings, known, rows = self._settings, self._history, self._rows
        tried = known.step[rows] > NEVER
        rate, is_recent = known.solve_rate[rows], step - known.step[rows] < settings.ask_again_after
        retired = tried & (rate >= settings.retire_above) & is_recent
        easy = tried & ~retired & (rate >= settings.easy_above)
        hard = tried & ~retired & (rate <= settings.hard_below)
        return rows[easy], rows[~(easy | hard | retired)], rows[hard], rows[retired]

    def choose(self, step: int, count: int) -> list[int]:
        random, settings = generator(*self._seed, step, "pools"), self._settings
        *active, retired = self.pools(step)
        mixed = [random.permutation(pool) for pool in active]
        weights = (settings.easy_weight, settings.middle_weight, settings.hard_weight)
        counts = deal(weights, count, random.random())
        chosen = np.concatenate([pool[:own] for pool, own in zip(mixed, counts, strict=True)])
        left = np.concatenate([pool[own:] for pool, own in zip(mixed, counts, strict=True)])
        oldest = retired[np.argsort(self._history.step[retired], kind="stable")]
        rows: list[int] = np.resize(np.concatenate([chosen, random.permutation(left), oldest]), count).tolist()
        return rows

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None: ...
