"""What a chain of stages learned and forgot, with intervals, in the terms of the continual-learning literature.

A chain's result is the matrix R of held-out accuracies: R[i, j] on level j after stage i; row 0 is before training.
With t the last stage and s(j) the first stage that trained on level j:

- average accuracy: mean over levels j of R[t, j]. ACC of GEM, arXiv:1706.08840.
- forgetting: mean over all levels of (best accuracy so far, now included) - R[t, j]. Never negative; what the model
  could do before training counts.
- forgetting of trained levels: mean over levels with s(j) < t of max(R[1..t-1, j]) - R[t, j]. F of Chaudhry et al.,
  arXiv:1801.10112. Negative when a level is better than ever.
- backward transfer: mean over levels with s(j) < t of R[t, j] - R[s(j), j]. BWT of GEM; negative is forgetting.
- forward transfer: mean over levels with s(j) > 1 of R[s(j)-1, j] - R[0, j]. FWT of GEM, with the model before
  training in place of a randomly initialised one.

The best of several noisy accuracies is biased upwards, the more of them there are the more: both kinds of
forgetting are above 0 for a chain that forgets nothing, and a chain of one stage hardly has any. Compare
forgetting between chains of equal length, and average accuracy between any.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.selection import natural_order
from pipeline.reports.statistics import percentile_interval
from pipeline.seeds import derive_seed

Array = NDArray[np.float64]
NUM_DRAWS = 2000


@dataclass(frozen=True)
class ChainOutcomes:
    """Every held-out answer of one finished chain."""

    setting: str
    seed: int
    levels: tuple[str, ...]
    """Columns of the matrix."""
    stages: tuple[str, ...]
    """Names of the rows after the first, which is before training."""
    trained_levels: tuple[frozenset[str], ...]
    """What each stage trained on, replay left out."""
    correct: tuple[Array, ...]
    """Per level: [1 + num_stages, num_problems], 1 for a right answer. The same problems in every chain."""

    def __post_init__(self) -> None:
        rows = 1 + len(self.stages)
        shapes = [array.shape for array in self.correct]
        if len(shapes) != len(self.levels) or any(len(s) != 2 or s[0] != rows or s[1] == 0 for s in shapes):
            raise ValueError(f"correct must be [{rows}, num_problems] for each of {self.levels}, got {shapes}")

    def matrix(self) -> Array:
        """[1 + num_stages, num_levels]: accuracy after each stage; row 0 is before training."""
        return np.stack([array.mean(axis=1) for array in self.correct], axis=1)

    def first_trained(self) -> tuple[int, ...]:
        """[num_levels]: the row after the first stage that trained on the level; 0 when none did."""
        rows = range(1, 1 + len(self.stages))
        return tuple(next((row for row in rows if lv in self.trained_levels[row - 1]), 0) for lv in self.levels)


def chain_outcomes(
    setting: str,
    seed: int,
    stages: Sequence[tuple[str, Iterable[str]]],
    evaluations: Sequence[Sequence[Mapping[str, Any]]],
    measure: str = "tagged",
) -> ChainOutcomes:
    """From the rows of a chain's evaluations.

    Args:
        stages: name and trained levels of each.
        evaluations: [1 + num_stages], before training first. Each row has level, problem_id and ``measure``.

    Raises:
        ValueError: the evaluations are not of the same problems.
    """
    tables = [{(row["level"], row["problem_id"]): float(row[measure]) for row in rows} for rows in evaluations]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise ValueError(f"evaluations of {setting}, seed {seed}, must be of the same problems, got different ones")
    levels = sorted({level for level, _ in tables[0]}, key=natural_order)
    problems = {level: sorted(key for key in tables[0] if key[0] == level) for level in levels}
    return ChainOutcomes(
        setting=setting,
        seed=seed,
        levels=tuple(levels),
        stages=tuple(name for name, _ in stages),
        trained_levels=tuple(frozenset(trained) for _, trained in stages),
        correct=tuple(np.array([[table[key] for key in problems[level]] for table in tables]) for level in levels),
    )


# Metrics: matrices [..., rows, levels] to [...] --------------------------------------------------


def average_accuracy(matrix: Array, first_trained: Sequence[int]) -> Array:
    return matrix[..., -1, :].mean(axis=-1)


def forgetting_by_level(matrix: Array) -> Array:
    """[..., rows, levels]: best accuracy so far minus accuracy now, after every stage."""
    return np.maximum.accumulate(matrix, axis=-2) - matrix


def forgetting(matrix: Array, first_trained: Sequence[int]) -> Array:
    return forgetting_by_level(matrix)[..., -1, :].mean(axis=-1)


def trained_forgetting(matrix: Array, first_trained: Sequence[int]) -> Array:
    earlier = [level for level, row in enumerate(first_trained) if 0 < row < matrix.shape[-2] - 1]
    return _mean([matrix[..., 1:-1, level].max(axis=-1) - matrix[..., -1, level] for level in earlier], matrix)


def backward_transfer(matrix: Array, first_trained: Sequence[int]) -> Array:
    earlier = [(level, row) for level, row in enumerate(first_trained) if 0 < row < matrix.shape[-2] - 1]
    return _mean([matrix[..., -1, level] - matrix[..., row, level] for level, row in earlier], matrix)


def forward_transfer(matrix: Array, first_trained: Sequence[int]) -> Array:
    later = [(level, row) for level, row in enumerate(first_trained) if row > 1]
    return _mean([matrix[..., row - 1, level] - matrix[..., 0, level] for level, row in later], matrix)


def _mean(terms: Sequence[Array], matrix: Array) -> Array:
    """NaN where there is nothing to average: no level was trained before the last stage, or after the first."""
    return np.mean(terms, axis=0) if terms else np.full(matrix.shape[:-2], np.nan)


METRICS: dict[str, Callable[[Array, Sequence[int]], Array]] = {
    "average_accuracy": average_accuracy,
    "forgetting": forgetting,
    "trained_forgetting": trained_forgetting,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
}


# Intervals ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """One metric of one setting. All in shares, not percent."""

    mean: float
    """Over the seeds."""
    interval: tuple[float, float]
    """95 %, by bootstrap over problems: what another choice of held-out problems would change."""
    by_seed: dict[int, float]

    @property
    def seed_range(self) -> float | None:
        """Largest minus smallest over seeds: what another seed would change. None for one seed."""
        return max(self.by_seed.values()) - min(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def seed_std(self) -> float | None:
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


def summarize(chains: Sequence[ChainOutcomes], num_draws: int = NUM_DRAWS) -> dict[str, dict[str, Estimate | None]]:
    """Per setting, in order of appearance: every metric, None where it is not defined.

    Args:
        num_draws: bootstrap replicates.
    """
    bootstrap = _Bootstrap(chains, num_draws)
    return {
        setting: {metric: bootstrap.estimate(setting, metric) for metric in METRICS} for setting in bootstrap.settings
    }


class _Bootstrap:
    """Replicates of every metric of every setting.

    A replicate draws the problems of each level with replacement, and every chain is measured on that draw: seeds
    and settings are answered on the same problems, so they rise and fall together when a draw is easy, and a
    difference between settings keeps only what differs.
    """

    def __init__(self, chains: Sequence[ChainOutcomes], num_draws: int) -> None:
        self.settings = list(dict.fromkeys(chain.setting for chain in chains))
        self._chains = chains
        self._counts = _draw_counts(chains, num_draws)

    def by_seed(self, setting: str, metric: str) -> dict[int, float]:
        chains = sorted(self._of(setting), key=lambda chain: chain.seed)
        return {c.seed: float(METRICS[metric](c.matrix(), c.first_trained())) for c in chains}

    def replicates(self, setting: str, metric: str) -> Array:
        """[num_draws]: means over the setting's seeds."""
        values = []
        for chain in self._of(setting):
            levels = zip(chain.levels, chain.correct, strict=True)
            matrices = [self._counts[level] @ correct.T / correct.shape[1] for level, correct in levels]
            values.append(METRICS[metric](np.stack(matrices, axis=-1), chain.first_trained()))
        return np.mean(values, axis=0)

    def estimate(self, setting: str, metric: str) -> Estimate | None:
        by_seed = self.by_seed(setting, metric)
        if any(math.isnan(value) for value in by_seed.values()):
            return None
        return Estimate(fmean(by_seed.values()), percentile_interval(self.replicates(setting, metric)), by_seed)

    def _of(self, setting: str) -> list[ChainOutcomes]:
        return [chain for chain in self._chains if chain.setting == setting]


def _draw_counts(chains: Sequence[ChainOutcomes], num_draws: int) -> dict[str, Array]:
    """Per level [num_draws, num_problems]: how often each problem is drawn."""
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
        .multinomial(size, np.full(size, 1 / size), size=num_draws)
        .astype(np.float64)
        for level, size in sizes.items()
    }


# Statements --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """The best setting against the baseline."""

    best: str
    baseline: str
    metric: str
    difference: float
    """Best minus baseline, means over the seeds that both have."""
    interval: tuple[float, float]
    """Of the difference. 95 % for the best of k settings: 1 - 0.05 / k for each (Bonferroni)."""
    by_seed: dict[int, float]
    larger_than_noise: bool
    """The interval leaves 0 out, and the difference is larger than its own range over seeds (None for one)."""
    statement: str


def compare_with_baseline(
    chains: Sequence[ChainOutcomes], baseline: str, metric: str = "average_accuracy", num_draws: int = NUM_DRAWS
) -> Comparison:
    """The setting with the highest ``metric``, and whether it differs from the baseline by more than the noise.

    Args:
        metric: one of which more is better.

    Raises:
        ValueError: no chain of the baseline, or none but the baseline, or no seed in common.
    """
    bootstrap = _Bootstrap(chains, num_draws)
    others = [setting for setting in bootstrap.settings if setting != baseline]
    if baseline not in bootstrap.settings or not others:
        raise ValueError(f"chains must be of {baseline} and of another setting, got {bootstrap.settings}")
    values = {setting: bootstrap.by_seed(setting, metric) for setting in bootstrap.settings}
    best = max(others, key=lambda setting: fmean(values[setting].values()))
    seeds = sorted(values[best].keys() & values[baseline].keys())
    if not seeds:
        raise ValueError(f"{best} and {baseline} must have a seed in common, got {values[best]} and {values[baseline]}")
    common = _Bootstrap([c for c in chains if c.setting in (best, baseline) and c.seed in seeds], num_draws)
    draws = common.replicates(best, metric) - common.replicates(baseline, metric)
    by_seed = {seed: values[best][seed] - values[baseline][seed] for seed in seeds}
    return _judge(best, baseline, metric, by_seed, percentile_interval(draws, 1 - 0.05 / len(others)))


def _judge(
    best: str, baseline: str, metric: str, by_seed: dict[int, float], interval: tuple[float, float]
) -> Comparison:
    difference = fmean(by_seed.values())
    seed_range = max(by_seed.values()) - min(by_seed.values())
    larger = len(by_seed) > 1 and not interval[0] <= 0 <= interval[1] and abs(difference) > seed_range
    spread = f"between seeds it varies by {_points(seed_range)}" if len(by_seed) > 1 else "there is one seed"
    verdict = (
        "That is larger than the noise."
        if larger
        else "Whether that is more than the noise cannot be said with one seed."
        if len(by_seed) == 1
        else "That is not larger than the noise."
    )
    statement = (
        f"Best by {metric.replace('_', ' ')}: {best}, {_signed(difference)} points against {baseline} "
        f"[{_signed(interval[0])}, {_signed(interval[1])}]; {spread}. {verdict}"
    )
    return Comparison(best, baseline, metric, difference, interval, by_seed, larger, statement)


@dataclass(frozen=True)
class Trend:
    """How a metric changes with a number of the setting, such as the replay ratio."""

    slope: float
    """Per unit of the number, by least squares over the settings."""
    interval: tuple[float, float]
    by_seed: dict[int, float]
    falls: bool
    """The interval is below 0, and so is the slope of every seed."""
    statement: str


def trend(
    chains: Sequence[ChainOutcomes],
    numbers: Mapping[str, float],
    name: str = "replay ratio",
    metric: str = "forgetting",
    num_draws: int = NUM_DRAWS,
) -> Trend:
    """Whether ``metric`` falls as the number rises.

    Args:
        numbers: setting -> its number. Settings without one, such as the baseline, are left out. Seeds that not all
            settings have are left out as well.

    Raises:
        ValueError: fewer than two different numbers, or no seed that all settings have.
    """
    if len(set(numbers.values())) < 2:
        raise ValueError(f"numbers must hold two different ones, got {dict(numbers)}")
    seeds = set.intersection(*({c.seed for c in chains if c.setting == setting} for setting in numbers))
    if not seeds:
        raise ValueError(f"settings must have a seed in common, got none: {sorted(numbers)}")
    used = [chain for chain in chains if chain.setting in numbers and chain.seed in seeds]
    bootstrap = _Bootstrap(used, num_draws)
    x = np.array([numbers[setting] for setting in bootstrap.settings])
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    values = [bootstrap.by_seed(setting, metric) for setting in bootstrap.settings]
    by_seed = {seed: float(weights @ [value[seed] for value in values]) for seed in sorted(seeds)}
    draws = weights @ np.stack([bootstrap.replicates(setting, metric) for setting in bootstrap.settings])
    slope, interval = fmean(by_seed.values()), percentile_interval(draws)
    falls = interval[1] < 0 and all(value < 0 for value in by_seed.values())
    verdict = "falls" if falls else "does not clearly fall"
    statement = (
        f"{metric.replace('_', ' ').capitalize()} {verdict} as the {name} rises: {_signed(slope * 0.1)} points for "
        f"each 0.1 [{_signed(interval[0] * 0.1)}, {_signed(interval[1] * 0.1)}]."
    )
    return Trend(slope, interval, by_seed, falls, statement)


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


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
