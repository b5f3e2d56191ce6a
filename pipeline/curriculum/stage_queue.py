"""The bookkeeping of a search, which decides the stages that may start next. Needs no Ray.

It remembers which stages are done, with their scores, which are running, and how often each failed. Everything else
follows: which stages are ready, which chains continue, when the search is over. So the outcome does not depend on
the order in which stages end, and a killed search resumes from the markers of its finished stages alone.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config import SearchConfig
from pipeline.curriculum.grid import ChainSpec
from pipeline.curriculum.halving import QueuedChain, Rung, decide_rungs, plan_rungs

ChainStatus = Literal["finished", "stopped", "failed", "unfinished"]


@dataclass(frozen=True)
class ReadyStage:
    """A stage that can start."""

    key: str
    chain: str
    """The chain whose next stage it is. Of several: the one of the lowest rank, then with the most stages left."""
    index: int
    """Place in that chain, from 0."""


class StageQueue:
    """The state of a search.

    A stage is ready when its chain continues, the stage before it is done, and it is neither running nor done. A
    stage that several chains share is one stage. A failed stage is ready again until it has failed more than
    ``max_retries`` times. Then the chains that need it end.
    """

    def __init__(self, chains: Sequence[QueuedChain], rungs: Sequence[Rung] = (), max_retries: int = 2) -> None:
        names = [chain.name for chain in chains]
        if not chains or len(set(names)) < len(names) or not all(chain.keys for chain in chains):
            raise ValueError(f"chains must have different names and at least one stage each, got {names}")
        self.chains = tuple(chains)
        self.rungs = tuple(sorted(rungs, key=lambda rung: rung.num_stages))
        self.max_retries = max_retries
        self._scores: dict[str, float] = {}
        self._running: set[str] = set()
        self._failures: Counter[str] = Counter()

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all stages."""
        return frozenset(key for chain in self.chains for key in chain.keys)

    @property
    def num_done(self) -> int:
        return len(self._scores)

    # Events ----------------------------------------------------------------------------------------

    def start(self, key: str) -> None:
        if key not in {stage.key for stage in self.ready()}:
            raise ValueError(f"stage {key} must be ready to start, got one that is done, running or waits for another")
        self._running.add(key)

    def finish(self, key: str, score: float) -> None:
        """The stage is done. Higher scores are better."""
        if not math.isfinite(score):
            raise ValueError(f"score of stage {key} must be a number, got {score}")
        self._running.discard(key)
        self._scores[key] = score

    def fail(self, key: str) -> None:
        self._running.discard(key)
        self._failures[key] += 1

    def restore(self, scores: Mapping[str, float]) -> None:
        """Take over the stages finished earlier, by key. Other searches' keys are ignored; running stages restart."""
        self._scores |= {key: score for key, score in scores.items() if key in self.keys}
        self._running.clear()

    # State -----------------------------------------------------------------------------------------

    def ready(self) -> list[ReadyStage]:
        """Stages that can start, at most one per chain: by the chain's rank, then those with the most stages left."""
        going_on, limit = self._decide()
        best: dict[str, tuple[int, int, ReadyStage]] = {}
        for chain in self.chains:
            index = chain.num_done(self._scores)
            if index == len(chain.keys) or self._is_broken(chain) or chain.keys[index] in self._running:
                continue
            if chain.protected or (chain.group in going_on and index < limit):
                key, num_left = chain.keys[index], len(chain.keys) - index
                if key not in best or (chain.rank, -num_left) < best[key][:2]:
                    best[key] = chain.rank, -num_left, ReadyStage(key, chain.name, index)
        return [stage for *_, stage in sorted(best.values(), key=lambda item: item[:2])]

    @property
    def is_over(self) -> bool:
        return not self._running and not self.ready()

    def status(self, chain: QueuedChain) -> ChainStatus:
        """``stopped`` by a rung, ``failed`` at a stage that failed too often."""
        if chain.num_done(self._scores) == len(chain.keys):
            return "finished"
        if self._is_broken(chain):
            return "failed"
        if not chain.protected and chain.group not in self._decide()[0]:
            return "stopped"
        return "unfinished"

    def outcome(self) -> dict[str, dict[str, Any]]:
        """Per chain: status, stages done, and the score of the last of them. For reports."""
        return {
            chain.name: {
                "status": self.status(chain),
                "num_done": (num_done := chain.num_done(self._scores)),
                "score": self._scores[chain.keys[num_done - 1]] if num_done else None,
            }
            for chain in self.chains
        }

    def to_state(self) -> dict[str, Any]:
        """Plain JSON: everything but the chains and rungs."""
        return {"scores": self._scores, "running": sorted(self._running), "failures": dict(self._failures)}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``to_state``, for a queue of the same chains."""
        self._scores, self._running = dict(state["scores"]), set(state["running"])
        self._failures = Counter(state["failures"])

    def _decide(self) -> tuple[set[str], float]:
        return decide_rungs(self.chains, self.rungs, self._scores, self._broken)

    def _is_broken(self, chain: QueuedChain) -> bool:
        return chain.is_broken(self._scores, self._broken)

    @property
    def _broken(self) -> set[str]:
        return {key for key, num_failures in self._failures.items() if num_failures > self.max_retries}


def make_queue(chains: Sequence[ChainSpec], keys: Sequence[Sequence[str]], config: SearchConfig) -> StageQueue:
    """The queue of a search: seeds of a setting stop together, baselines never.

    All chains of one seed come before those of the next, baselines first. So a search that is cut short has compared
    all settings on the seeds that it reached.

    Args:
        keys: of each chain's stages, by ``stage_keys``.
    """
    seeds = list(dict.fromkeys(chain.seed for chain in chains))
    queued = [
        QueuedChain(
            chain.name,
            tuple(chain_keys),
            setting=chain.setting,
            rank=2 * seeds.index(chain.seed) + (not chain.is_baseline),
            protected=chain.is_baseline,
        )
        for chain, chain_keys in zip(chains, keys, strict=True)
    ]
    rungs = plan_rungs(queued, config.halving.budget_stages) if config.halving else []
    return StageQueue(queued, rungs, config.max_retries)
