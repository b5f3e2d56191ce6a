"""The gate and the weighted sum, worked out by hand."""

from typing import Any

import pytest

from pipeline.config import RewardConfig
from pipeline.rewards.totals import passes_gate, quality, totals

TERMS: list[dict[str, Any]] = [
    {"name": "valid", "weight": 0.5, "gate": True},
    {"name": "hard", "weight": 1.0, "gate": True},
    {"name": "novel", "weight": 2.0},
]


def config(**settings: Any) -> RewardConfig:
    return RewardConfig.model_validate({"functions": TERMS, **settings})


def parts(valid: float, hard: float, novel: float) -> dict[str, float]:
    return {"valid": valid, "hard": hard, "novel": novel}


def test_any_gate_at_zero_fails_and_a_small_value_passes():
    terms = config().functions
    assert passes_gate(parts(1, 0.1, 0), terms)
    assert not passes_gate(parts(0, 1, 1), terms) and not passes_gate(parts(1, 0, 1), terms)


def test_raw_totals_are_weighted_sums_and_what_fails_has_zero():
    group = [parts(1, 1, 0.25), parts(1, 0.1, 0), parts(0, 1, 1), parts(1, 0, 1)]
    assert totals(group, config(), {}) == pytest.approx([2.0, 0.6, 0.0, 0.0])


def test_what_fails_is_lowest_even_below_negative_sums():
    group = [parts(1, 1, -3.0), parts(0, 1, 1), parts(1, 1, 1)]
    # 1.5 - 6 = -4.5; 1.5 below it, the weights of the gates; 1.5 + 2
    assert totals(group, config(), {}) == pytest.approx([-4.5, -6.0, 3.5])


def test_with_z_scores_what_fails_is_below_the_lowest_that_passes():
    settings = {"normalize": "zscore", "zscore": {"warmup": 2, "clip": 3.0}}
    history = {"novel": [0.25, 0.75]}  # mean 0.5, standard deviation 0.25
    group = [parts(1, 1, 0.0), parts(1, 1, 0.75), parts(0, 1, 1.0)]
    # 1.5 + 2 x -2; 1.5 + 2 x 1; 1.5 below the first
    assert totals(group, config(**settings), history) == pytest.approx([-2.5, 3.5, -4.0])


def test_z_scores_leave_gates_as_they_are():
    settings = {"normalize": "zscore", "zscore": {"warmup": 2}}
    history = {"novel": [0.25, 0.75], "hard": [5.0, 9.0]}
    assert totals([parts(1, 0.5, 0.5)], config(**settings), history) == pytest.approx([1.0])


@pytest.mark.parametrize(("normalize", "failing"), [(None, 0.0), ("zscore", -1.5)])
def test_a_group_that_fails_as_a_whole_has_equal_totals(normalize, failing):
    assert totals([parts(0, 1, 1), parts(1, 0, 0)], config(normalize=normalize), {}) == [failing, failing]


def test_without_gates_everything_passes():
    plain = RewardConfig()
    assert totals([{"correctness": 2.0, "format": 0.4}, {"correctness": 0.0, "format": 0.0}], plain, {}) == [2.4, 0.0]


def test_quality_is_the_weighted_mean_behind_the_gate():
    terms = config().functions
    assert quality(parts(1, 0.5, 0.25), terms) == pytest.approx((0.5 + 0.5 + 0.5) / 3.5)
    assert quality(parts(0, 1, 1), terms) == 0.0
