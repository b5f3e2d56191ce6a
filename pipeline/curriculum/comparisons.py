"""The best setting against the baseline, what settings gained, and the trend of a metric over the replay ratio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from pipeline.curriculum.estimates import Bootstrap, Estimate
from pipeline.curriculum.forgetting import ChainAnswers
from pipeline.reports.statistics import percentile_interval


@dataclass(frozen=True)
class Comparison:
    """The best setting against the baseline."""

    best: str
    baseline: str
    metric: str
    difference: float
    """Best minus baseline, averaged over the seeds that both have."""
    interval: tuple[float, float]
    """Interval of the difference. 95 % for the best of k settings: 1 - 0.05 / k for each (Bonferroni)."""
    by_seed: dict[int, float]
    larger_than_noise: bool
    """The interval excludes 0, and the difference exceeds its own range over seeds. Never with one seed."""
    statement: str


def compare_with_baseline(
    chains: Sequence[ChainAnswers], baseline: str, metric: str = "average_accuracy"
) -> Comparison:
    """Find the setting with the highest ``metric`` and test its difference from the baseline against the noise.

    Args:
        metric: one where higher is better.

    Raises:
        ValueError: there are no chains of the baseline, or of no other setting, or no seed in common.
    """
    bootstrap = Bootstrap(chains)
    others = [setting for setting in bootstrap.settings if setting != baseline]
    if baseline not in bootstrap.settings or not others:
        raise ValueError(f"chains must be of {baseline} and of another setting, got {bootstrap.settings}")
    values = {setting: bootstrap.by_seed(setting, metric) for setting in bootstrap.settings}
    best = max(others, key=lambda setting: fmean(values[setting].values()))
    seeds = sorted(values[best].keys() & values[baseline].keys())
    if not seeds:
        raise ValueError(f"{best} and {baseline} must have a seed in common, got {values[best]} and {values[baseline]}")
    common = Bootstrap([c for c in chains if c.setting in (best, baseline) and c.seed in seeds])
    draws = common.replicates(best, metric) - common.replicates(baseline, metric)
    by_seed = {seed: values[best][seed] - values[baseline][seed] for seed in seeds}
    return _judge(best, baseline, metric, by_seed, percentile_interval(draws, 1 - 0.05 / len(others)))


def _judge(
    best: str, baseline: str, metric: str, by_seed: dict[int, float], interval: tuple[float, float]
) -> Comparison:
    difference = fmean(by_seed.values())
    seed_range = max(by_seed.values()) - min(by_seed.values())
    larger = len(by_seed) > 1 and not interval[0] <= 0 <= interval[1] and abs(difference) > seed_range
    if len(by_seed) == 1:
        verdict = "with one seed, noise cannot be ruled out."
    else:
        spread = f"between seeds it varies by {100 * seed_range:.1f} points"
        verdict = f"{spread}. That is {'' if larger else 'not '}larger than the noise."
    statement = (
        f"Best by {metric.replace('_', ' ')}: {best}, {_signed(difference)} points against {baseline} "
        f"[{_signed(interval[0])}, {_signed(interval[1])}]; {verdict}"
    )
    return Comparison(best, baseline, metric, difference, interval, by_seed, larger, statement)


@dataclass(frozen=True)
class Trend:
    """The change of a metric with the replay ratio."""

    slope: float
    """Per unit of the ratio, by least squares over the settings."""
    interval: tuple[float, float]
    by_seed: dict[int, float]
    falls: bool
    """The interval is below 0, and so is the slope of every seed."""
    statement: str


def trend(chains: Sequence[ChainAnswers], ratios: Mapping[str, float], metric: str = "forgetting") -> Trend:
    """Test whether ``metric`` falls as the replay ratio rises.

    Args:
        ratios: replay ratio of each setting. Other settings, such as the baseline, are left out, and so are seeds
            that not all settings have.

    Raises:
        ValueError: fewer than two different ratios, or no seed that all settings have.
    """
    if len(set(ratios.values())) < 2:
        raise ValueError(f"ratios must hold two different ones, got {dict(ratios)}")
    seeds = set.intersection(*({c.seed for c in chains if c.setting == setting} for setting in ratios))
    if not seeds:
        raise ValueError(f"settings must have a seed in common, got none: {sorted(ratios)}")
    bootstrap = Bootstrap([chain for chain in chains if chain.setting in ratios and chain.seed in seeds])
    x = np.array([ratios[setting] for setting in bootstrap.settings])
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    values = [bootstrap.by_seed(setting, metric) for setting in bootstrap.settings]
    by_seed = {seed: float(weights @ [value[seed] for value in values]) for seed in sorted(seeds)}
    draws = weights @ np.stack([bootstrap.replicates(setting, metric) for setting in bootstrap.settings])
    slope, interval = fmean(by_seed.values()), percentile_interval(draws)
    falls = interval[1] < 0 and all(value < 0 for value in by_seed.values())
    statement = (
        f"{metric.replace('_', ' ').capitalize()} {'falls' if falls else 'does not clearly fall'} as the replay ratio "
        f"rises: {_signed(slope * 0.1)} points for each 0.1 [{_signed(interval[0] * 0.1)}, "
        f"{_signed(interval[1] * 0.1)}]."
    )
    return Trend(slope, interval, by_seed, falls, statement)


def gain_statement(gains: Mapping[str, Estimate]) -> str:
    """The gain of every setting in training, with its interval over problems and its seeds."""
    parts = []
    for setting, gain in gains.items():
        low, high = map(_signed, gain.interval)
        seeds = ", ".join(map(_signed, gain.by_seed.values()))
        parts.append(f"{setting} {_signed(gain.mean)} points [{low}, {high}] (by seed {seeds})")
    return f"Average accuracy gained in training: {'; '.join(parts)}."


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"
