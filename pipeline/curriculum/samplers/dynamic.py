"""Dynamic sampling: groups of equal rewards are dropped, and others asked for instead.

Source: DAPO, arXiv:2503.14476.
"""

import math
from collections.abc import Sequence
from typing import Generic, TypeVar

from pipeline.config.samplers import DynamicConfig

T = TypeVar("T")
LEAST_FRAC = 0.25
"""A round asks for at most 1 / so many groups per group that is missing."""


class Filling(Generic[T]):
    """The places of a batch, filled in order with groups that teach something.

    Args:
        places: what each holds from the start, such as a replayed group; None where a place is open.
    """

    def __init__(self, settings: DynamicConfig, places: Sequence[T | None]) -> None:
        self._settings = settings
        self._places = list(places)
        self._open = [index for index, taken in enumerate(places) if taken is None]
        self.num_rounds = 0
        self.dropped: list[tuple[int, T]] = []
        """Groups of equal rewards, and the place that each was asked for."""
        self.surplus: list[tuple[int, T]] = []
        """Groups that teach something, but came when all places were taken."""
        self._num_asked = self._num_teaching = 0

    @property
    def num_missing(self) -> int:
        return len(self._open)

    @property
    def num_to_ask(self) -> int:
        """Groups to ask for in the next round: enough to fill the batch if they teach as often as earlier ones did.

        0 if the batch is full, or this was the last round.
        """
        if not self._open or self.num_rounds == self._settings.max_rounds:
            return 0
        teaching_frac = max(self._num_teaching / self._num_asked, LEAST_FRAC)
        return num_asked(self._settings, self.num_missing / teaching_frac)

    def add(self, groups: Sequence[tuple[T, bool]]) -> None:
        """Take in the groups of a round, each with True if it teaches something."""
        self.num_rounds += 1
        self._num_asked += len(groups)
        self._num_teaching += sum(teaches for _, teaches in groups)
        last = len(self._places) - 1
        for group, teaches in groups:
            place = self._open[0] if self._open else last
            if not teaches:
                self.dropped.append((place, group))
            elif self._open:
                self._places[self._open.pop(0)] = group
            else:
                self.surplus.append((place, group))

    def batch(self) -> list[T]:
        """The whole batch, after the last round. Places that are still open go to the groups dropped last."""
        first = len(self.dropped) - len(self._open)
        for place, (_, group) in zip(self._open, self.dropped[first:], strict=True):
            self._places[place] = group
        del self.dropped[first:]
        self._open.clear()
        return [group for group in self._places if group is not None]


def num_asked(settings: DynamicConfig, num_needed: float) -> int:
    """Groups to ask for if ``num_needed`` are needed."""
    return math.ceil(round(num_needed * settings.oversampling, 9))
