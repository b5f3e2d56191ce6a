"""The metrics of settings with their uncertainty: bootstrap intervals over problems, and the spread over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from pipeline.curriculum.forgetting import METRICS, Array, ChainAnswers
from pipeline.reports.statistics import percentile_interval
from pipeline.seeds import derive_seed

NUM_DRAWS = 2000
"""Bootstrap replicates."""


@dataclass(frozen=True)
class Estimate:
    """One metric of one setting, in shares, not percent."""

    mean: float
    """Over the seeds."""
    interval: tuple[float, float]
    """95 %, by bootstrap over problems: the effect of choosing other held-out problems."""
    by_seed: dict[int, float]

    @property
    def seed_range(self) -> float | None:
        """Largest minus smallest over seeds: the effect of choosing another seed. None for one seed."""
        return max(self.by_seed.values()) - min(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def seed_std(self) -> float | None:
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


class Bootstrap:
    """Replicates of every metric of every setting.

    A replicate draws the problems of each level with replacement, and every chain is measured on the same draw. An
    easy draw lifts all seeds and settings alike, so it cancels in differences between settings.
    """

    def __init__(self, chains: Sequence[ChainAnswers]) -> None:
        self.settings = list(dict.fromkeys(chain.setting for chain in chains))
        self._chains = chains
        self._counts = _draw_counts(chains)

    def by_seed(self, setting: str, metric: str) -> dict[int, float]:
        chains = sorted(self._of(setting), key=lambda chain: chain.seed)
        return {c.seed: float(METRICS[metric](c.matrix(), c.first_trained())) for c in chains}

    def replicates(self, setting: str, metric: str) -> Array:
        """[NUM_DRAWS]: means over the setting's seeds."""
        values = []
        for chain in self._of(setting):
            levels = zip(chain.levels, chain.correct, strict=True)
            matrices = [self._counts[level] @ correct.T / correct.shape[1] for level, correct in levels]
            values.append(METRICS[metric](np.stack(matrices, axis=-1), chain.first_trained()))
        means: Array = np.mean(values, axis=0)
        return means

    def estimate(self, setting: str, metric: str) -> Estimate | None:
        by_seed = self.by_seed(setting, metric)
        if any(math.isnan(value) for value in by_seed.values()):
            return None
        return Estimate(fmean(by_seed.values()), percentile_interval(self.replicates(setting, metric)), by_seed)

    def _of(self, setting: str) -> list[ChainAnswers]:
        return [chain for chain in self._chains if chain.setting == setting]


def _draw_counts(chains: Sequence[ChainAnswers]) -> dict[str, Array]:
    """Per level [NUM_DRAWS, num_problems]: how often each problem is drawn."""
    sizes: dict[str, int] = {}
    for chain in chains:
        for level, correct in zip(chain.levels, chain.correct, strict=True):
            if sizes.setdefault(level, correct.shape[1]) != correct.shape[1]:
                raise ValueError(
                    f"level {level} must have the same held-out problems in all chains, got {sizes[level]} and "
                    f"{correct.shape[1]}"
                )
    return {
        level: np.random.default_rng(derive_seed("bootstrap", level))
        .multinomial(size, np.full(size, 1 / size), size=NUM_DRAWS)
        .astype(np.float64)
        for level, size in sizes.items()
    }


def summarize(chains: Sequence[ChainAnswers]) -> dict[str, dict[str, Estimate | None]]:
    """Every metric of every setting, in order of appearance. None where a metric is not defined."""
    bootstrap = Bootstrap(chains)
    return {
        setting: {metric: bootstrap.estimate(setting, metric) for metric in METRICS} for setting in bootstrap.settings
    }


def summary_rows(summaries: Mapping[str, Mapping[str, Estimate | None]]) -> list[dict[str, Any]]:
    """One plain row per setting, for ``summary.json`` and tables."""
    return [
        {"setting": setting, "num_seeds": _num_seeds(metrics)}
        | {metric: estimate and _plain(estimate) for metric, estimate in metrics.items()}
        for setting, metrics in summaries.items()
    ]


def _num_seeds(metrics: Mapping[str, Estimate | None]) -> int:
    return max(len(estimate.by_seed) for estimate in metrics.values() if estimate)


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {
        "mean": estimate.mean,
        "interval": list(estimate.interval),
        "by_seed": {str(seed): value for seed, value in estimate.by_seed.items()},
        "seed_range": estimate.seed_range,
        "seed_std": estimate.seed_std,
    }
