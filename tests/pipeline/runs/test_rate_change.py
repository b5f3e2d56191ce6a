"""Changes of a success rate, and those that chance makes."""

import math

import numpy as np
import pytest

from pipeline.runs import rate_change
from pipeline.runs.rate_change import newest_change


def test_two_rates_must_explain_the_attempts_ten_times_as_well_as_one(monkeypatch):
    """One rate explains 4 correct and then 3 of 12 with B(8, 10), two rates with B(5, 1) B(4, 10)."""

    def beta(a: int, b: int) -> float:
        return math.factorial(a - 1) * math.factorial(b - 1) / math.factorial(a + b - 1)

    factor = beta(5, 1) * beta(4, 10) / beta(8, 10)
    assert factor == pytest.approx(13.6, abs=0.01)
    for bound, change in ((factor - 0.01, -0.75), (factor + 0.01, 0.0)):
        monkeypatch.setattr(rate_change, "MIN_BAYES_FACTOR", bound)
        assert newest_change([4, 1, 1, 1], [4] * 4) == change


@pytest.mark.parametrize(
    ("correct", "of", "change"),
    [
        ([8, 3, 3, 3], 8, -5 / 8),
        ([0, 5, 5, 5], 8, 5 / 8),
        ([4, 0, 0, 4, 4, 4], 4, 2 / 3),  # from 4 of 12
        ([4, 4, 4, 4, 0, 0, 0, 0, 4, 4], 4, 1.0),  # a fall, and a newer rise
        ([32, 26, 26, 26], 32, 0.0),  # certain, but less than a quarter
        ([2, 4, 4], 4, 0.0),
        ([4], 4, 0.0),
        ([0, 0], 4, 0.0),
    ],
)
def test_the_newest_change_counts(correct, of, change):
    assert newest_change(correct, [of] * len(correct)) == pytest.approx(change)


@pytest.mark.parametrize("num_completions", [4, 8])
def test_chance_seldom_makes_a_change_and_a_lasting_change_is_seldom_missed(num_completions):
    """3,000 problems asked 20 times at a constant rate of a half: 3.0 % fall and 3.4 % rise with 4 completions, and
    3.1 % each with 8. A fall from 0.95 to 0.3, asked 3 times before and 5 times after, is found in 95 % and 98 %."""
    chance, of = np.random.default_rng(0), num_completions
    constant = [newest_change(row, [of] * 20) for row in chance.binomial(of, 0.5, (400, 20))]
    assert sum(change < 0 for change in constant) < 0.08 * 400
    assert sum(change > 0 for change in constant) < 0.08 * 400
    rates = np.array([0.95] * 3 + [0.3] * 5)
    fallen = [newest_change(row, [of] * 8) for row in chance.binomial(of, rates, (400, 8))]
    assert sum(change < 0 for change in fallen) > 0.85 * 400
