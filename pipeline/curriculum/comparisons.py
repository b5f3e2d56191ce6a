"""Settings compared with the baseline, what each gained, and the trend of a metric over the replay ratio."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from pipeline.curriculum.estimates import Bootstrap, Estimate
from pipeline.curriculum.forgetting import Array, ChainAnswers
from pipeline.reports.statistics import percentile_interval


@dataclass(frozen=True)
class Comparison:
    """A setting compared with the baseline."""

    setting: str
    baseline: str
    metric: str
    difference: float
    """Setting minus baseline, averaged over the seeds that both have."""
    interval: tuple[float, float]
    """Interval of the difference over held-out problems and seeds; with one seed over problems alone. 95 % for all k
    settings together: 1 - 0.05 / k for each (Bonferroni)."""
    by_seed: dict[int, float]
    larger_than_noise: bool
    """The interval excludes 0. Never with one seed."""

    @property
    def seed_range(self) -> float:
        return max(self.by_seed.values()) - min(self.by_seed.values())

    @property
    def statement(self) -> str:
        """A sentence about the best setting."""
        if len(self.by_seed) == 1:
            verdict = "with one seed, noise cannot be ruled out."
        else:
            spread = f"between seeds it varies by {100 * self.seed_range:.1f} points"
            verdict = f"{spread}. That is {'' if self.larger_than_noise else 'not '}larger than the noise."
        return (
            f"Best by {self.metric.replace('_', ' ')}: {self.setting}, {_signed(self.difference)} points against "
            f"{self.baseline} {_interval(self.interval)}; {verdict}"
        )


def compare_with_baseline(
    chains: Sequence[ChainAnswers], baseline: str, metric: str = "average_accuracy"
) -> Comparison:
    """The best of ``compare_all``: the setting that gains most on the baseline, on the seeds that both have.

    Args:
        metric: one where higher is better.

    Raises:
        ValueError: there are no chains of the baseline, none of another setting, or no seed in common.
    """
    settings = list(dict.fromkeys(chain.setting for chain in chains))
    if baseline not in settings or len(settings) < 2:
        raise ValueError(f"chains must be of {baseline} and of another setting, got {settings}")
    if not (comparisons := compare_all(chains, baseline, metric)):
        raise ValueError(f"{baseline} and another setting must have a seed in common, got none")
    return comparisons[0]


def compare_all(chains: Sequence[ChainAnswers], baseline: str, metric: str = "average_accuracy") -> list[Comparison]:
    """The baseline compared with every other setting that shares a seed with it, the best setting first."""
    seeds = {setting: {c.seed for c in chains if c.setting == setting} for setting in (c.setting for c in chains)}
    others = [setting for setting in seeds if setting != baseline and seeds[setting] & seeds.get(baseline, set())]
    comparisons = [_compare(chains, setting, baseline, metric, len(others)) for setting in others]
    return sorted(comparisons, key=lambda comparison: -comparison.difference)


def _compare(chains: Sequence[ChainAnswers], setting: str, baseline: str, metric: str, num_compared: int) -> Comparison:
    seeds_of = [{c.seed for c in chains if c.setting == each} for each in (setting, baseline)]
    seeds = sorted(seeds_of[0] & seeds_of[1])
    common = Bootstrap([c for c in chains if c.setting in (setting, baseline) and c.seed in seeds])
    draws, level = common.replicates(setting, metric) - common.replicates(baseline, metric), 1 - 0.05 / num_compared
    values, base = (common.by_seed(each, metric) for each in (setting, baseline))
    by_seed = {seed: values[seed] - base[seed] for seed in seeds}
    low, high = _interval_over_both(draws, list(by_seed.values()), level)
    interval = (max(low, -1.0), min(high, 1.0))  # no two shares differ by more
    larger = len(by_seed) > 1 and not interval[0] <= 0 <= interval[1]
    return Comparison(setting, baseline, metric, fmean(by_seed.values()), interval, by_seed, larger)


def _interval_over_both(draws: Array, by_seed: Sequence[float], level: float) -> tuple[float, float]:
    """Interval of the mean of ``by_seed`` over problems, by ``draws``, and over seeds; for one seed, over problems."""
    mean, seed_margin = fmean(by_seed), _seed_margin(by_seed, level)
    low, high = (bound - mean for bound in percentile_interval(draws, level))
    return mean - math.hypot(low, seed_margin), mean + math.hypot(high, seed_margin)


def _seed_margin(differences: Sequence[float], level: float) -> float:
    """Half the width of Student's interval of a mean over seeds; 0 for one seed. Few seeds make it wide: 3
    seeds and 6 settings make it 6 standard deviations."""
    from scipy.stats import t

    count = len(differences)
    return float(t.ppf((1 + level) / 2, count - 1)) * stdev(differences) / math.sqrt(count) if count > 1 else 0.0


def verdict_statement(comparisons: Sequence[Comparison]) -> str:
    """Which settings are better or worse than the baseline beyond the noise, and which cannot be told apart."""
    groups = {
        "better than {} beyond the noise": [c for c in comparisons if c.larger_than_noise and c.difference > 0],
        "worse than {} beyond the noise": [c for c in comparisons if c.larger_than_noise and c.difference < 0],
        "not to be told apart from {}": [c for c in comparisons if not c.larger_than_noise],
    }
    parts = [
        f"{title.format(found[0].baseline)}: "
        + ", ".join(f"{c.setting} {_signed(c.difference)} {_interval(c.interval)}" for c in found)
        for title, found in groups.items()
        if found
    ]
    first = "No setting is better than the baseline beyond the noise. " if not next(iter(groups.values())) else ""
    text = "; ".join(parts)
    return f"{first}{text[0].upper()}{text[1:]} (points, 95 % over problems and seeds for all together)."


@dataclass(frozen=True)
class Trend:
    """The change of a metric with the replay ratio."""

    slope: float
    """Per unit of the ratio, by least squares over the settings."""
    interval: tuple[float, float]
    """95 %, over held-out problems and seeds; with one seed over problems alone."""
    by_seed: dict[int, float]
    falls: bool
    """The interval is below 0. Never with one seed."""
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
    slope, interval = fmean(by_seed.values()), _interval_over_both(draws, list(by_seed.values()), 0.95)
    falls = len(by_seed) > 1 and interval[1] < 0
    statement = (
        f"{metric.replace('_', ' ').capitalize()} {'falls' if falls else 'does not clearly fall'} as the replay ratio "
        f"rises: {_signed(slope * 0.1)} points for each 0.1 {_interval((interval[0] * 0.1, interval[1] * 0.1))}"
        f"{'' if len(by_seed) > 1 else '; with one seed, noise cannot be ruled out'}."
    )
    return Trend(slope, interval, by_seed, falls, statement)


def gain_statement(gains: Mapping[str, Estimate]) -> str:
    """The gain of every setting in training, with its interval over problems and its seeds."""
    parts = []
    for setting, gain in gains.items():
        seeds = ", ".join(map(_signed, gain.by_seed.values()))
        parts.append(f"{setting} {_signed(gain.mean)} points {_interval(gain.interval)} (by seed {seeds})")
    return f"Average accuracy gained in training: {'; '.join(parts)}."


def _interval(shares: tuple[float, float]) -> str:
    return f"[{_signed(shares[0])}, {_signed(shares[1])}]"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"
