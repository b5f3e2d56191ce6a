"""Brings stages to the learner workers of a group, which train one stage after another. Imports little: Ray Train's
controller and the actor that hands stages out need neither torch nor the loops."""

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import ray

from actors.calls import TRANSFER_S

if TYPE_CHECKING:
    from actors.learner.setup import StageSetup

POLL_S = 30.0
"""Longest time that a call waits inside the actor."""


class StageFeed:
    """Hands stages to the learner workers of one group. actors/driver/learners.py makes it a Ray actor.

    It dies with the process that owns the group; workers that wait for a stage then end too.

    Args:
        num_workers: all of them must have trained a stage before it counts as trained.
    """

    def __init__(self, num_workers: int) -> None:
        self._stages: list[list[Any]] = []
        self._num_workers, self._num_reports = num_workers, 0
        self._changed = asyncio.Condition()

    async def put(self, setup: list[Any]) -> None:
        """Add a stage: a reference to its setup, in a list so that Ray does not resolve it. Empty ends the group."""
        async with self._changed:
            self._stages.append(setup)
            self._changed.notify_all()

    async def stage(self, index: int) -> list[Any] | None:
        """The stage with this number, counted from 0; None if it is not there yet."""
        return self._stages[index] if await self._wait_for(lambda: len(self._stages) > index) else None

    async def report(self) -> None:
        """A worker has trained its stage."""
        async with self._changed:
            self._num_reports += 1
            num_trained, rest = divmod(self._num_reports, self._num_workers)
            if not rest:
                self._stages[num_trained - 1] = []  # nobody asks for it again: Ray may forget the setup
            self._changed.notify_all()

    async def is_trained(self, index: int) -> bool:
        """True once all workers have trained this stage; False if some still do."""
        return await self._wait_for(lambda: self._num_reports >= (index + 1) * self._num_workers)

    async def _wait_for(self, is_so: Any) -> bool:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(is_so), POLL_S)
            except TimeoutError:
                return False
            return True


def learn_stages(loop_config: dict[str, Any]) -> None:
    """The whole life of a learner's process: it trains stages until the feed ends."""
    from actors.learner.stages import prepare, train_stage

    prepare()
    for index in count():
        setup = _next_setup(loop_config["feed"], index)
        if setup is None:
            return
        train_stage(setup)
        del setup  # before the wait for the next one
        ray.get(loop_config["feed"].report.remote(), timeout=TRANSFER_S)


def _next_setup(feed: Any, index: int) -> "StageSetup | None":
    """Waits as long as the feed lives."""
    while (setup := ray.get(feed.stage.remote(index), timeout=TRANSFER_S)) is None:
        pass
    return ray.get(setup[0], timeout=TRANSFER_S) if setup else None
