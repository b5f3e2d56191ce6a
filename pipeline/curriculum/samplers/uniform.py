"""Seeded permutations, of all problems or of each category."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.curriculum.samplers.base import Outcome, deal, generator
from pipeline.seeds import item_at


class Uniform:
    """An endless walk: each problem comes once before any comes twice.

    Args:
        rows: to choose from.
        seed: of their order.
    """

    def __init__(self, rows: Sequence[int], *seed: object) -> None:
        self._rows, self._seed, self._position = rows, seed, 0

    def choose(self, step: int, count: int) -> list[int]:
        positions = range(self._position, self._position + count)
        self._position += count
        return [item_at(self._rows, position, *self._seed) for position in positions]

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None: ...

    def state(self) -> dict[str, Any]:
        return {"position": self._position}

    def load(self, state: dict[str, Any]) -> None:
        self._position = state["position"]


class Categories:
    """Problems by category, each with a walk of its own.

    Args:
        rows_of: each category's rows.
    """

    def __init__(self, rows_of: Mapping[str, Sequence[int]], *seed: object) -> None:
        self._seed = seed
        self.walks = {name: Uniform(rows, *seed, name) for name, rows in rows_of.items()}

    def choose(self, step: int, count: int, weights: Sequence[float]) -> list[int]:
        """Rows of a step, categories in shares by weight."""
        counts = deal(weights, count, generator(*self._seed, step, "deal").random())
        return [row for walk, own in zip(self.walks.values(), counts, strict=True) for row in walk.choose(step, own)]

    def state(self) -> dict[str, Any]:
        return {name: walk.state() for name, walk in self.walks.items()}

    def load(self, state: dict[str, Any]) -> None:
        for name, walk in self.walks.items():
            walk.load(state[name])
