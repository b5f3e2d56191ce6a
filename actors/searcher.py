"""Ray Tune's view of a search: every trial is one stage, suggested when the stage before it is done."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from pipeline.curriculum.search import ChainSearch

logger = logging.getLogger(__name__)


class StageSearcher(Searcher):
    """Gives Tune the stages of a ChainSearch. A trial's config holds ``stage``: key, chain and index.

    A trial that ends in an error, or without a score, counts as a failure of its stage; the next trial of that stage
    goes on from its last checkpoint, which is found by the stage's key.

    Restoring is not Tune's: make a new Tuner with a search restored from the markers of finished stages. What Tune
    saves (``save``) knows less than these when the driver is killed.
    """

    def __init__(self, search: ChainSearch, score: str = "score") -> None:
        super().__init__(metric=score, mode="max")
        self._search = search
        self._stages: dict[str, str] = {}
        """Key of the stage of every running trial, by trial id."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of a new trial, None while all that is left waits for running stages, or FINISHED."""
        if self._search.is_over:
            return Searcher.FINISHED
        ready = self._search.ready()
        if not ready:
            return None
        stage = ready[0]
        self._search.start(stage.key)
        self._stages[trial_id] = stage.key
        logger.info("trial %s: stage %d of %s, %s", trial_id, stage.index + 1, stage.chain, stage.key)
        return {"stage": {"key": stage.key, "chain": stage.chain, "index": stage.index}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self._stages.pop(trial_id, None)
        if key is None:
            return
        score = (result or {}).get(self.metric)
        if error or not isinstance(score, int | float) or not math.isfinite(score):
            logger.warning("trial %s: stage %s failed (%s)", trial_id, key, "error" if error else f"score {score}")
            self._search.fail(key)
        else:
            self._search.finish(key, float(score))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(json.dumps({"search": self._search.to_state(), "stages": self._stages}))

    def restore(self, checkpoint_path: str) -> None:
        state = json.loads(Path(checkpoint_path).read_text())
        self._search.set_state(state["search"])
        self._stages = state["stages"]
