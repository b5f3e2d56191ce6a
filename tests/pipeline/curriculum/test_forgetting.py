import math

import numpy as np
import pytest

from pipeline.curriculum.forgetting import METRICS, ChainAnswers, chain_answers, forgetting_by_level
from tests.support.answers import FORGETS, chain


def metrics(result: ChainAnswers) -> dict[str, float]:
    return {name: float(metric(result.matrix(), result.first_trained())) for name, metric in METRICS.items()}


def test_the_metrics_of_a_chain_that_forgets():
    assert metrics(chain(FORGETS)) == pytest.approx(
        {
            "average_accuracy": (0.3 + 0.5 + 0.8) / 3,
            "gain": ((0.3 - 0.1) + (0.5 - 0.0) + (0.8 - 0.1)) / 3,
            "forgetting": ((0.6 - 0.3) + (0.7 - 0.5) + 0.0) / 3,
            "trained_forgetting": ((0.6 - 0.3) + (0.7 - 0.5)) / 2,
            "backward_transfer": ((0.3 - 0.6) + (0.5 - 0.7)) / 2,
            "forward_transfer": ((0.2 - 0.0) + (0.3 - 0.1)) / 2,
        }
    )


def test_forgetting_after_every_stage():
    lost = forgetting_by_level(chain(FORGETS).matrix())
    expected = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.3, 0.2, 0.0]]
    assert lost.tolist() == [pytest.approx(row) for row in expected]


def test_a_level_better_than_ever_has_negative_forgetting_in_one_sense_only():
    measured = metrics(chain([[0, 5, 7], [0, 0, 5]]))
    assert measured["forgetting"] == 0
    assert measured["trained_forgetting"] == pytest.approx(-0.2)
    assert measured["backward_transfer"] == pytest.approx(0.2)


def test_skills_from_before_training_can_be_forgotten():
    measured = metrics(chain([[9, 9, 9], [6, 1, 4]]))
    assert measured["forgetting"] == pytest.approx((0.0 + 0.2) / 2)
    assert measured["trained_forgetting"] == 0  # level 2 is trained last: nothing came after it


def test_the_best_accuracy_may_come_between_training_and_the_end():
    measured = metrics(chain([[0, 5, 8, 6], [0, 0, 5, 5], [0, 0, 0, 5]]))
    assert measured["trained_forgetting"] == pytest.approx(((0.8 - 0.6) + 0.0) / 2)
    assert measured["backward_transfer"] == pytest.approx(((0.6 - 0.5) + 0.0) / 2)


def test_the_mixed_baseline_has_no_transfer():
    measured = metrics(chain([[1, 5], [0, 4]], trained=[{"1", "2"}]))
    assert measured["average_accuracy"] == pytest.approx(0.45) and measured["forgetting"] == 0
    assert all(math.isnan(measured[name]) for name in ("trained_forgetting", "backward_transfer", "forward_transfer"))


def test_reverse_order_and_levels_never_trained():
    # stage 1 trains on level 2, stage 2 on level 1; nothing trains on level 3
    measured = metrics(chain([[1, 2, 6], [1, 8, 5], [3, 4, 1]], trained=[{"2"}, {"1"}]))
    assert measured["backward_transfer"] == pytest.approx(0.5 - 0.8)
    assert measured["forward_transfer"] == pytest.approx(0.2 - 0.1)
    assert measured["forgetting"] == pytest.approx((0.0 + 0.3 + 0.3) / 3)


def test_a_level_counts_from_the_stage_that_trained_on_it_first():
    result = chain([[0, 5, 6, 7], [0, 1, 4, 8]], trained=[{"1"}, {"2"}, {"1", "2"}])
    assert result.first_trained() == (1, 2)
    assert metrics(result)["backward_transfer"] == pytest.approx(((0.7 - 0.5) + (0.8 - 0.4)) / 2)


def test_answers_of_the_wrong_shape_are_an_error():
    with pytest.raises(ValueError, match=r"correct must be \[3, num_problems\]"):
        ChainAnswers("s", 0, ("1",), ("a", "b"), (frozenset("1"), frozenset("1")), (np.zeros((2, 5)),))


def test_answers_come_from_the_rows_of_evaluations():
    def rows(**right):
        made = [{"level": name[1:2], "problem_id": name, "tagged": value, "other": 1} for name, value in right.items()]
        return made[::-1] if right["l2a"] else made  # in any order

    evaluations = [
        rows(l1a=False, l1b=True, l2a=False),
        rows(l1a=True, l1b=True, l2a=False),
        rows(l1a=True, l1b=False, l2a=True),
    ]
    result = chain_answers("s", 3, [("level_1", ["1"]), ("level_2", ["2"])], evaluations)
    assert result.matrix().tolist() == [[0.5, 0.0], [1.0, 0.0], [0.5, 1.0]]
    assert result.levels == ("1", "2") and result.first_trained() == (1, 2) and result.seed == 3
    with pytest.raises(ValueError, match="evaluations of s, seed 3, must be of the same problems"):
        chain_answers("s", 3, [("level_1", ["1"])], [evaluations[0], evaluations[1][:2]])
