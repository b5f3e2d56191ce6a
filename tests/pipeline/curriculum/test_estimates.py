import json

import pytest

from pipeline.curriculum.estimates import summarize, summary_rows
from tests.support.answers import FORGETS, chain


def test_the_interval_has_the_width_of_a_binomial():
    # Two levels of 100 problems at 0.5: deviation of the mean sqrt(0.25 / 100 / 2) = 0.0354, and 1.96 of it 0.069
    metrics = summarize([chain([[5, 5], [5, 5]], num_problems=100, trained=[{"1", "2"}])])["s"]
    accuracy = metrics["average_accuracy"]
    assert accuracy is not None and accuracy.mean == 0.5
    assert accuracy.interval == pytest.approx((0.5 - 0.069, 0.5 + 0.069), abs=0.01)


def test_seeds_are_averaged_and_their_spread_is_reported():
    metrics = summarize([chain([[0, 4]], seed=0), chain([[0, 6]], seed=1), chain([[0, 8]], seed=2)])["s"]
    accuracy = metrics["average_accuracy"]
    assert accuracy is not None
    assert accuracy.mean == pytest.approx(0.6) and accuracy.by_seed == pytest.approx({0: 0.4, 1: 0.6, 2: 0.8})
    assert accuracy.seed_range == pytest.approx(0.4) and accuracy.seed_std == pytest.approx(0.2)
    assert metrics["backward_transfer"] is None
    alone = summarize([chain([[0, 4]])])["s"]["average_accuracy"]
    assert alone is not None and alone.seed_range is None and alone.seed_std is None


def test_the_same_chains_give_the_same_intervals_in_any_order():
    chains = [chain(FORGETS, setting, seed) for setting in "ab" for seed in (0, 1)]
    forward, backward = summarize(chains), summarize(chains[::-1])
    assert forward == {setting: backward[setting] for setting in forward}


def test_rows_are_plain_json():
    rows = summary_rows(summarize([chain([[1, 5], [0, 4]], "mixed", trained=[{"1", "2"}]), chain(FORGETS[:2], "b")]))
    assert json.loads(json.dumps(rows)) == rows
    assert [row["setting"] for row in rows] == ["mixed", "b"] and rows[0]["forward_transfer"] is None
    assert rows[0]["average_accuracy"]["mean"] == pytest.approx(0.45) and rows[0]["num_seeds"] == 1


def test_chains_must_be_measured_on_the_same_problems():
    with pytest.raises(ValueError, match="level 1 must have the same held-out problems in all chains, got 10 and 20"):
        summarize([chain([[1, 5]]), chain([[1, 5]], "t", num_problems=20)])
