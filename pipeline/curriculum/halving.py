"""Successive halving: after certain stages only the best settings continue.

Source: arXiv:1502.07943. Here the share that is kept follows from a budget of stages.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class QueuedChain:
    """A chain, reduced to the keys of its stages."""

    name: str
    keys: tuple[str, ...]
    setting: str = ""
    """Chains of one setting differ by the seed and are stopped together. Empty: the chain is alone."""
    protected: bool = False
    """A baseline: it takes part in no rung and is never stopped."""
    rank: int = 0
    """Stages of chains with a lower one come first."""

    @property
    def group(self) -> str:
        """The setting, or the chain's own name."""
        return self.setting or self.name

    def num_done(self, scores: Mapping[str, float]) -> int:
        """Stages done, given the scores of all finished stages by key."""
        return next((index for index, key in enumerate(self.keys) if key not in scores), len(self.keys))

    def is_broken(self, scores: Mapping[str, float], broken: Collection[str]) -> bool:
        """True if its next stage has failed for good."""
        index = self.num_done(scores)
        return index < len(self.keys) and self.keys[index] in broken


@dataclass(frozen=True)
class Rung:
    """After ``num_stages`` stages only the best ``keep`` groups continue."""

    num_stages: int
    keep: int


def decide_rungs(
    chains: Sequence[QueuedChain], rungs: Sequence[Rung], scores: Mapping[str, float], broken: Collection[str]
) -> tuple[set[str], float]:
    """The groups that continue after all rungs decided so far, and the stages they may train before the next rung.

    A rung is decided once every chain that races to it has reached it or is broken. A baseline's group is always
    among those that continue.

    Args:
        rungs: ordered by their number of stages.
        scores: of all finished stages, by key.
        broken: keys of the stages that failed for good.
    """
    remaining = {chain.group for chain in chains}
    for rung in rungs:
        racing = [chain for chain in _racing(chains, rung) if chain.group in remaining]
        late = [chain for chain in racing if chain.num_done(scores) < rung.num_stages]
        if not all(chain.is_broken(scores, broken) for chain in late):
            return remaining, rung.num_stages
        arrived = [chain for chain in racing if chain not in late]
        remaining -= {chain.group for chain in racing} - _kept(rung, arrived, scores)
    return remaining, math.inf


def _racing(chains: Sequence[QueuedChain], rung: Rung) -> list[QueuedChain]:
    """Chains that have stages after the rung."""
    return [chain for chain in chains if not chain.protected and len(chain.keys) > rung.num_stages]


def _kept(rung: Rung, arrived: Sequence[QueuedChain], scores: Mapping[str, float]) -> set[str]:
    """The best groups by mean score. A group whose stages so far are those of a kept one is kept with it."""
    last_keys = {
        group: [chain.keys[rung.num_stages - 1] for chain in members] for group, members in _by_group(arrived).items()
    }
    means = {group: fmean(scores[key] for key in keys) for group, keys in last_keys.items()}
    best = sorted(means, key=lambda group: -means[group])[: rung.keep]
    return {group for group, keys in last_keys.items() if any(set(keys) == set(last_keys[kept]) for kept in best)}


def _by_group(chains: Sequence[QueuedChain]) -> dict[str, list[QueuedChain]]:
    groups: dict[str, list[QueuedChain]] = {}
    for chain in chains:
        groups.setdefault(chain.group, []).append(chain)
    return groups


def plan_rungs(chains: Sequence[QueuedChain], budget_stages: int) -> list[Rung]:
    """Rungs that each keep the same share of the groups: the largest share that the budget allows.

    There is a rung after every stage by whose end all groups differ. (Replay ratios share their first stage, so there
    is nothing to decide after that one.) A shared stage is paid for once. Baselines and retries are not counted.

    Raises:
        ConfigError: the budget does not cover all stages before the first rung and all stages of one group.
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
        f"search.halving.budget_stages must be at least {cost}, got {budget_stages}: that trains every setting up to "
        "where the first can be stopped, and the best one to its end. Raise it, or search fewer settings."
    )


def _group_sizes(racing: Sequence[QueuedChain], share: float) -> list[int]:
    """[num_stages]: how many groups train each stage."""
    groups = _by_group(racing)
    num_stages = max((len(chain.keys) for chain in racing), default=0)
    sizes, num_rungs = [len(groups)] * min(1, num_stages), 0
    for stage in range(1, num_stages):
        so_far = {frozenset(chain.keys[:stage][-1] for chain in members) for members in groups.values()}
        num_rungs += len(so_far) == len(groups)
        sizes.append(max(1, math.floor(len(groups) * share**num_rungs + 1e-9)))
    return sizes


def _num_trained(racing: Sequence[QueuedChain], sizes: Sequence[int]) -> int:
    """Upper bound on the number of stages trained when ``sizes`` groups train each stage."""
    largest = max(Counter(chain.group for chain in racing).values(), default=0)
    keys = [{chain.keys[stage] for chain in racing if stage < len(chain.keys)} for stage in range(len(sizes))]
    return sum(min(size * largest, len(distinct)) for size, distinct in zip(sizes, keys, strict=True))
