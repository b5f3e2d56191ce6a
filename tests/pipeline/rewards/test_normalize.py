import numpy as np
import pytest

from pipeline.config import ZScoreConfig
from pipeline.rewards.normalize import extended, z_scores


def test_z_scores_by_hand():
    config = ZScoreConfig(warmup=4, clip=1.5)
    history = [0.0, 0.0, 1.0, 1.0]  # mean 0.5, population standard deviation 0.5
    assert z_scores([0.5, 1.0, 0.25, 9.0, -9.0], history, config) == [0.0, 1.0, -0.5, 1.5, -1.5]


def test_values_stay_as_they_are_until_the_warm_up_is_over():
    config = ZScoreConfig(warmup=4)
    assert z_scores([7.0], [0.0, 0.0, 1.0], config) == [7.0]
    assert z_scores([7.0], [], config) == [7.0]
    assert z_scores([0.5], [0.0, 0.0, 1.0, 1.0], config) == [0.0]


def test_the_deviation_has_a_floor():
    assert z_scores([0.6], [0.5] * 64, ZScoreConfig(std_floor=0.2)) == pytest.approx([0.5])


def test_z_scores_are_those_of_numpy():
    drawn = np.random.default_rng(0)
    history, values = drawn.gamma(2.0, size=1000), drawn.gamma(2.0, size=50)
    expected = np.clip((values - history.mean()) / history.std(), -3, 3)
    assert z_scores(values.tolist(), history.tolist(), ZScoreConfig()) == expected.tolist()


def test_the_newest_thousand_values_are_kept():
    config = ZScoreConfig()
    history = extended([], [float(n) for n in range(990)], config)
    assert len(history) == 990
    history = extended(history, [float(n) for n in range(990, 1005)], config)
    assert history == [float(n) for n in range(5, 1005)]
    assert extended(history, [], config) == history
