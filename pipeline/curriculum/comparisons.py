"""Settings compared with the baseline, what each gained, and the trend of a metric over the replay ratio."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from pipeline.curriculum.estimates import Bootstrap, Estimate
from pipeline.curriculum.forgetting import METRICS, Array, ChainAnswers
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
    settings that the search plans to compare: 1 - 0.05 / k for each (Bonferroni). The variance over seeds is pooled
    over all settings that are compared."""
    by_seed: dict[int, float]
    larger_than_noise: bool
    """The interval excludes 0. Never with one seed."""

    @property
    def has_one_seed(self) -> bool:
        return len(self.by_seed) == 1

    @property
    def seed_range(self) -> float:
        return max(self.by_seed.values()) - min(self.by_seed.values())

    @property
    def statement(self) -> str:
        """A sentence about the best setting."""
        if self.has_one_seed:
            verdict = "with one seed, noise cannot be ruled out."
        else:
            spread = f"between seeds it varies by {100 * self.seed_range:.1f} points"
            verdict = f"{spread}. That is {'' if self.larger_than_noise else 'not '}larger than the noise."
        return (
            f"Best by {self.metric.replace('_', ' ')}: {self.setting}, {_signed(self.difference)} points against "
            f"{self.baseline} {_interval(self.interval)}; {verdict}"
        )


def compare_with_baseline(
    chains: Sequence[ChainAnswers], baseline: str, num_planned: int = 1, metric: str = "average_accuracy"
) -> Comparison:
    """The best of ``compare_all``: the setting that gains most on the baseline, on the seeds that both have.

    Args:
        num_planned: as in ``compare_all``.
        metric: one where higher is better.

    Raises:
        ValueError: there are no chains of the baseline, none of another setting, or no seed in common.
    """
    settings = list(dict.fromkeys(chain.setting for chain in chains))
    if baseline not in settings or len(settings) < 2:
        raise ValueError(f"chains must be of {baseline} and of another setting, got {settings}")
    if not (comparisons := compare_all(chains, baseline, num_planned, metric)):
        raise ValueError(f"{baseline} and another setting must have a seed in common, got none")
    return comparisons[0]


def compare_all(
    chains: Sequence[ChainAnswers], baseline: str, num_planned: int = 1, metric: str = "average_accuracy"
) -> list[Comparison]:
    """The baseline compared with every other setting that shares a seed with it, the best setting first.

    Args:
        num_planned: settings to compare once the search is over. The 5 % are shared by as many, or by those compared
            now if these are more.
    """
    seeds = {setting: {c.seed for c in chains if c.setting == setting} for setting in (c.setting for c in chains)}
    others = [setting for setting in seeds if setting != baseline and seeds[setting] & seeds.get(baseline, set())]
    if not others:
        return []
    level = 1 - 0.05 / max(num_planned, len(others))
    seed_margin = _pooled_margin([c for c in chains if c.setting in (baseline, *others)], metric, level)
    comparisons = [_compare(chains, setting, baseline, metric, level, seed_margin) for setting in others]
    return sorted(comparisons, key=lambda comparison: -comparison.difference)


def _compare(
    chains: Sequence[ChainAnswers], setting: str, baseline: str, metric: str, level: float, seed_margin: float
) -> Comparison:
    seeds_of = [{c.seed for c in chains if c.setting == each} for each in (setting, baseline)]
    seeds = sorted(seeds_of[0] & seeds_of[1])
    common = Bootstrap([c for c in chains if c.setting in (setting, baseline) and c.seed in seeds])
    draws = common.replicates(setting, metric) - common.replicates(baseline, metric)
    values, base = (common.by_seed(each, metric) for each in (setting, baseline))
    by_seed = {seed: values[seed] - base[seed] for seed in seeds}
    difference, has_seeds = fmean(by_seed.values()), len(by_seed) > 1
    over_seeds = seed_margin / math.sqrt(len(by_seed)) if has_seeds else 0.0
    low, high = _interval_over_both(draws, difference, over_seeds, level)
    interval = (max(low, -1.0), min(high, 1.0))  # no two shares differ by more
    larger = has_seeds and not interval[0] <= 0 <= interval[1]
    return Comparison(setting, baseline, metric, difference, interval, by_seed, larger)


def _interval_over_both(draws: Array, mean: float, seed_margin: float, level: float) -> tuple[float, float]:
    """Interval of a mean over problems, by ``draws``, and over seeds, by half the width of their own interval."""
    low, high = (bound - mean for bound in percentile_interval(draws, level))
    return mean - math.hypot(low, seed_margin), mean + math.hypot(high, seed_margin)


def _pooled_margin(chains: Sequence[ChainAnswers], metric: str, level: float) -> float:
    """Half the width of Student's interval of the difference of two settings on one seed; for a mean over S seeds,
    divide by the root of S. 0 if no setting has a second seed.

    The variance is the residual mean square of a randomized block design: least squares with an effect of every setting
    and of every seed, its block. With all chains there are (settings - 1) * (seeds - 1) degrees of freedom; missing
    chains cost one each.

    Source: Dunnett, 1955, with Bonferroni's level instead of the exact joint one.
    """
    from scipy.stats import t

    effects = {(name, value): None for c in chains for name, value in (("setting", c.setting), ("seed", c.seed))}
    design = np.array([[float(getattr(c, name) == value) for name, value in effects] for c in chains])
    values = np.array([float(METRICS[metric](c.matrix(), c.first_trained())) for c in chains])
    fitted, _, rank, _ = np.linalg.lstsq(design, values)
    residuals, num_free = values - design @ fitted, len(chains) - int(rank)
    if num_free == 0:
        return 0.0
    return float(t.ppf((1 + level) / 2, num_free)) * math.sqrt(2 * residuals @ residuals / num_free)


def _seed_margin(by_seed: Sequence[float]) -> float:
    """Half the width of Student's 95 % interval of a mean over seeds; 0 for one seed."""
    from scipy.stats import t

    count = len(by_seed)
    return float(t.ppf(0.975, count - 1)) * stdev(by_seed) / math.sqrt(count) if count > 1 else 0.0


def verdict_statement(comparisons: Sequence[Comparison]) -> str:
    """A sentence with the settings that are better or worse than the baseline beyond the noise, those that cannot be
    told apart from it, and those that are undecided with one seed."""
    several, single = ([c for c in comparisons if c.has_one_seed == is_single] for is_single in (False, True))
    groups = {
        "better than {} beyond the noise": [c for c in several if c.larger_than_noise and c.difference > 0],
        "worse than {} beyond the noise": [c for c in several if c.larger_than_noise and c.difference < 0],
        "not to be told apart from {}": [c for c in several if not c.larger_than_noise],
        "not decided against {}, for lack of a second seed": single,
    }
    parts = [
        f"{title.format(found[0].baseline)}: "
        + ", ".join(
            f"{c.setting} {_signed(c.difference)} {_interval(c.interval)}{' (one seed)' * c.has_one_seed}"
            for c in found
        )
        for title, found in groups.items()
        if found
    ]
    first = "No setting is shown to be better than the baseline. " if not next(iter(groups.values())) else ""
    text = "; ".join(parts)
    over = "problems and seeds" if several else "problems alone"
    mixed = ", with one seed over problems alone" if several and single else ""
    return f"{first}{text[0].upper()}{text[1:]} (points, 95 % for all settings together, over {over}{mixed})."


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
    slopes = list(by_seed.values())
    slope, interval = fmean(slopes), _interval_over_both(draws, fmean(slopes), _seed_margin(slopes), 0.95)
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
    return f"{round(100 * share, 1) + 0.0:+.1f}"
