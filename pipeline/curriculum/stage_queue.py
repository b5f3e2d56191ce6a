"""Which stage of which chain may start next: the bookkeeping of a search, free of Ray.

All that is remembered is which stages are done, with their scores, which are running, and how often each failed.
Everything else follows from that: what is ready, which chains go on, when the search is over. So the outcome does
not depend on the order in which stages end, and a search that was killed goes on from the markers of its finished
stages alone.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pipeline.config import SearchConfig
from pipeline.curriculum.stages import ChainSpec
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import write_json

ChainStatus = Literal["finished", "stopped", "failed", "unfinished"]


@dataclass(frozen=True)
class QueuedChain:
    """One chain by the keys of its stages."""

    name: str
    keys: tuple[str, ...]
    group: str = ""
    """Chains of one setting, which differ by the seed: they are stopped together. Empty: the chain alone."""
    protected: bool = False
    """Takes part in no rung, and is never stopped: a baseline."""


@dataclass(frozen=True)
class Rung:
    """After ``num_stages`` stages only the best ``keep`` groups go on."""

    num_stages: int
    keep: int


@dataclass(frozen=True)
class ReadyStage:
    """A stage that can start, and the chain whose next stage it is: of several the one with most stages left."""

    key: str
    chain: str
    index: int
    """From 0."""


class StageQueue:
    """The state of a search.

    A stage is ready when its chain goes on, the stage before it is done, and nobody started or finished it. A stage
    of several chains is one stage. A stage that failed is ready again until it failed more than ``max_retries``
    times; then the chains that need it end.
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
        """Of all stages."""
        return frozenset(key for chain in self.chains for key in chain.keys)

    @property
    def num_done(self) -> int:
        return len(self._scores)

    # What happens ----------------------------------------------------------------------------------

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
        """Take over what was finished earlier. Keys of other searches are left out, running stages start again."""
        self._scores |= {key: score for key, score in scores.items() if key in self.keys}
        self._running.clear()

    # What follows ----------------------------------------------------------------------------------

    def ready(self) -> list[ReadyStage]:
        """Stages that can start, those first whose chain has most stages left. At most one per chain."""
        going_on, limit = self._decide()
        found: dict[str, tuple[int, ReadyStage]] = {}
        for chain in self.chains:
            index = self._num_done(chain)
            if index == len(chain.keys) or self._is_dead(chain) or chain.keys[index] in self._running:
                continue
            if chain.protected or (self._group(chain) in going_on and index < limit):
                key, num_left = chain.keys[index], len(chain.keys) - index
                if num_left > found.get(key, (0,))[0]:
                    found[key] = num_left, ReadyStage(key, chain.name, index)
        return [stage for _, stage in sorted(found.values(), key=lambda item: -item[0])]

    @property
    def is_over(self) -> bool:
        return not self._running and not self.ready()

    def status(self, chain: QueuedChain) -> ChainStatus:
        """``stopped`` by a rung, ``failed`` at a stage that failed too often."""
        if self._num_done(chain) == len(chain.keys):
            return "finished"
        if self._is_dead(chain):
            return "failed"
        if not chain.protected and self._group(chain) not in self._decide()[0]:
            return "stopped"
        return "unfinished"

    def outcome(self) -> dict[str, dict[str, Any]]:
        """Per chain: status, stages done, and the score of the last of them. For reports."""
        return {
            chain.name: {
                "status": self.status(chain),
                "num_done": (num_done := self._num_done(chain)),
                "score": self._scores[chain.keys[num_done - 1]] if num_done else None,
            }
            for chain in self.chains
        }

    def parents(self) -> dict[str, set[str]]:
        """For every stage, the stages that come right before it: one, but for a stage that takes nothing over."""
        before: dict[str, set[str]] = {}
        for chain in self.chains:
            for parent, key in zip((None, *chain.keys), chain.keys, strict=False):
                before.setdefault(key, set()).update({parent} - {None})  # type: ignore[arg-type]
        return before

    def to_state(self) -> dict[str, Any]:
        """Plain JSON: what ``from_state`` needs beside the chains."""
        return {"scores": self._scores, "running": sorted(self._running), "failures": dict(self._failures)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._scores, self._running = dict(state["scores"]), set(state["running"])
        self._failures = Counter(state["failures"])

    # Rungs -----------------------------------------------------------------------------------------

    def _decide(self) -> tuple[set[str], float]:
        """The groups that go on after all rungs decided so far, and how many stages they may do for now.

        A rung is decided when every chain that races to it has reached it, or can no longer.
        """
        going_on = {self._group(chain) for chain in self.chains}
        for rung in self.rungs:
            racing = [c for c in self._racing(rung) if self._group(c) in going_on]
            if not all(self._reached(chain, rung) or self._is_dead(chain) for chain in racing):
                return going_on, rung.num_stages
            going_on -= {self._group(chain) for chain in racing} - self._kept(rung, racing)
        return going_on, math.inf

    def _racing(self, rung: Rung) -> list[QueuedChain]:
        """Chains that have stages after the rung."""
        return [chain for chain in self.chains if not chain.protected and len(chain.keys) > rung.num_stages]

    def _kept(self, rung: Rung, racing: Sequence[QueuedChain]) -> set[str]:
        """The best groups by mean score. One that has the very same stages so far as a kept one is kept with it."""
        groups: dict[str, list[QueuedChain]] = {}
        for chain in racing:
            if self._reached(chain, rung):
                groups.setdefault(self._group(chain), []).append(chain)
        scores = {name: fmean(self._scores[c.keys[rung.num_stages - 1]] for c in held) for name, held in groups.items()}
        best = sorted(groups, key=lambda name: -scores[name])[: rung.keep]
        so_far = {name: {chain.keys[rung.num_stages - 1] for chain in held} for name, held in groups.items()}
        return {name for name in groups if any(so_far[name] == so_far[kept] for kept in best)}

    # Chains ----------------------------------------------------------------------------------------

    def _num_done(self, chain: QueuedChain) -> int:
        return next((i for i, key in enumerate(chain.keys) if key not in self._scores), len(chain.keys))

    def _reached(self, chain: QueuedChain, rung: Rung) -> bool:
        return self._num_done(chain) >= rung.num_stages

    def _is_dead(self, chain: QueuedChain) -> bool:
        index = self._num_done(chain)
        return index < len(chain.keys) and self._failures[chain.keys[index]] > self.max_retries

    @staticmethod
    def _group(chain: QueuedChain) -> str:
        return chain.group or chain.name


def make_queue(chains: Sequence[ChainSpec], keys: Sequence[Sequence[str]], config: SearchConfig) -> StageQueue:
    """The search over these chains: seeds of a setting stop together, baselines never.

    Args:
        keys: of each chain's stages, by ``stage_keys``.
    """
    plans = [
        QueuedChain(chain.name, tuple(chain_keys), group=chain.setting, protected=chain.is_baseline)
        for chain, chain_keys in zip(chains, keys, strict=True)
    ]
    rungs = plan_rungs(plans, config.halving.budget_stages) if config.halving else []
    return StageQueue(plans, rungs, config.max_retries)


def plan_rungs(chains: Sequence[QueuedChain], budget_stages: int) -> list[Rung]:
    """Rungs that each keep the same share of groups, the largest share for which the budget is enough.

    A rung comes after every stage by which no two groups are the same any more: all replay ratios share their first
    stage, so there is nothing to decide after it. A shared stage is paid for once; baselines are not counted, and
    neither are retries.

    Raises:
        ConfigError: the budget is not enough for all stages before the first rung and all stages of one group.

    Source: successive halving, arXiv:1502.07943, with the share chosen by the budget.
    """
    racing = [chain for chain in chains if not chain.protected]
    cost = 0
    for percent in range(100, -1, -1):
        sizes = _group_sizes(racing, percent / 100)
        cost = _num_trained(racing, sizes)
        if cost <= budget_stages:
            pairs = zip(range(1, len(sizes)), sizes, sizes[1:], strict=False)
            return [Rung(stage, after) for stage, before, after in pairs if after < before]
    raise ConfigError(
        f"search.halving.budget_stages must be at least {cost}, got {budget_stages}: that is every setting up to where "
        "the first can be stopped, and the best one to its end. Raise it, or search fewer settings."
    )


def _group_sizes(racing: Sequence[QueuedChain], share: float) -> list[int]:
    """[num_stages]: how many groups train each stage."""
    groups: dict[str, list[QueuedChain]] = {}
    for chain in racing:
        groups.setdefault(chain.group or chain.name, []).append(chain)
    num_stages = max((len(chain.keys) for chain in racing), default=0)
    sizes, num_rungs = [len(groups)] * min(1, num_stages), 0
    for stage in range(1, num_stages):
        so_far = {frozenset(chain.keys[:stage][-1] for chain in held) for held in groups.values()}
        num_rungs += len(so_far) == len(groups)
        sizes.append(max(1, math.floor(len(groups) * share**num_rungs + 1e-9)))
    return sizes


def _num_trained(racing: Sequence[QueuedChain], sizes: Sequence[int]) -> int:
    """Stages trained when so many groups train each stage, at most."""
    largest = max(Counter(chain.group or chain.name for chain in racing).values(), default=0)
    keys = [{chain.keys[stage] for chain in racing if stage < len(chain.keys)} for stage in range(len(sizes))]
    return sum(min(size * largest, len(distinct)) for size, distinct in zip(sizes, keys, strict=True))


# Markers -----------------------------------------------------------------------------------------


def write_marker(directory: Path, key: str, result: Mapping[str, Any]) -> None:
    """Say that a stage is truly done. The last thing a stage does, after its checkpoint and evaluation.

    Args:
        result: plain JSON with ``score``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / f"{key}.json", {"key": key, **result})


def read_markers(directory: Path) -> dict[str, dict[str, Any]]:
    """Results of the finished stages by key; empty before the first one."""
    found = {}
    for path in sorted(directory.glob("*.json")):
        try:
            result = json.loads(path.read_text())
            found[str(result["key"])] = result
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error!r}. Delete it to train its stage again.") from None
    return found
