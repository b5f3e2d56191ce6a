"""Ray Tune's view of a search: every trial is one stage, suggested once the stage before it is done."""

import json
import logging
import math
from pathlib import Path
from typing import Any, Protocol

from ray.tune.search import Searcher

from pipeline.curriculum.stage_queue import StageQueue
from pipeline.errors import ClusterError
from pipeline.runs.notices import notify

logger = logging.getLogger(__name__)


class ActorSlots(Protocol):
    """The actors of each stage that may run at a time."""

    def __len__(self) -> int: ...
    def actors(self, slot: int) -> Any: ...
    def replace(self, slot: int) -> None:
        """Start new actors."""


class StageSearcher(Searcher):  # type: ignore[misc]
    """Gives Tune the stages of a StageQueue. A trial's config holds ``stage``, its key, chain, index and slot, and
    ``actors``, which no other running trial has.

    A trial that ends in an error, or without a score, counts as a failure of its stage, and its slot gets new actors.
    The next trial of that stage continues from its last checkpoint, which is found by the stage's key.

    A search is not restored by Tune but by a new Tuner, with a queue restored from the markers of finished stages. The
    state that Tune saves (``save``) is older than these when the driver is killed.
    """

    def __init__(self, queue: StageQueue, slots: ActorSlots) -> None:
        super().__init__(metric="score", mode="max")
        self._queue, self._slots = queue, slots
        self._free = list(range(len(slots)))
        self._lost = 0
        """Slots without actors."""
        self._failed: set[int] = set()
        """Slots whose last stage failed."""
        self._running: dict[str, tuple[str, int, str]] = {}
        """By trial id: the stage's key, its slot, and its name in messages."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of a new trial; None while no slot is free or every stage left waits for a running one; or
        FINISHED."""
        if self._queue.is_over:
            return str(Searcher.FINISHED)
        ready = self._queue.ready()
        if not ready or not self._free:
            return None
        stage, slot = ready[0], self._free.pop(0)
        if slot in self._failed and not self._replaced(slot):
            return None
        self._queue.start(stage.key)
        self._running[trial_id] = stage.key, slot, f"{stage.chain} stage {stage.index + 1}"
        logger.info("trial %s: stage %d of %s, %s", trial_id, stage.index + 1, stage.chain, stage.key)
        described = {"key": stage.key, "chain": stage.chain, "index": stage.index, "slot": slot}
        return {"stage": described, "actors": self._slots.actors(slot)}

    def _replaced(self, slot: int) -> bool:
        """Give a slot new actors. Without room for them the search goes on without the slot, and ends without its last
        one."""
        try:
            self._slots.replace(slot)
        except ClusterError as error:
            self._lost += 1
            if self._lost == len(self._slots):
                raise
            notify(f"the search goes on with one stage fewer at a time: {error}")
            return False
        self._failed.remove(slot)
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self._running:
            return
        key, slot, name = self._running.pop(trial_id)
        self._free.append(slot)
        score = (result or {}).get(self.metric)
        if error or not isinstance(score, int | float) or not math.isfinite(score):
            self._queue.fail(key)
            self._failed.add(slot)
            reason = "error" if error else f"score {score}"
            print(f"{name} ({key}) failed ({reason}); {self._what_next(key)}", flush=True)
        else:
            self._queue.finish(key, float(score))
            done, seconds = self._queue.num_done, (result or {}).get("time_total_s", 0.0)
            count = f"{done}/{len(self._queue.keys)}"
            print(f"{count}  {name} ({key})  accuracy {score:.1%}  {seconds:.0f} s", flush=True)

    def _what_next(self, key: str) -> str:
        is_retried = key in {stage.key for stage in self._queue.ready()}
        return "it will be retried" if is_retried else "its chains end here"

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(json.dumps([self._queue.to_state(), self._free, self._running]))

    def restore(self, checkpoint_path: str) -> None:
        state, self._free, running = json.loads(Path(checkpoint_path).read_text())
        self._queue.set_state(state)
        self._running = {trial_id: (key, slot, name) for trial_id, (key, slot, name) in running.items()}
