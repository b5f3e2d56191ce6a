import json
import math

import numpy as np
import pytest

from pipeline.curriculum.forgetting import (
    METRICS,
    ChainOutcomes,
    chain_outcomes,
    compare_with_baseline,
    forgetting_by_level,
    summarize,
    summary_rows,
    trend,
)


def answers(tenths: list[int], num_problems: int = 10) -> np.ndarray:
    """[rows, num_problems] with so many tenths of the answers right in each row: the first ones."""
    return np.array([[float(index < t * num_problems // 10) for index in range(num_problems)] for t in tenths])


def chain(columns: list[list[int]], setting: str = "s", seed: int = 0, trained=None, num_problems=10) -> ChainOutcomes:
    """Columns of the matrix, in tenths; by default stage i trains on level i."""
    levels = tuple(str(index + 1) for index in range(len(columns)))
    num_stages = len(columns[0]) - 1
    trained = trained or [{level} for level in levels[:num_stages]]
    return ChainOutcomes(
        setting=setting,
        seed=seed,
        levels=levels,
        stages=tuple(f"stage{index}" for index in range(num_stages)),
        trained_levels=tuple(frozenset(level) for level in trained),
        correct=tuple(answers(column, num_problems) for column in columns),
    )


def metrics(result: ChainOutcomes) -> dict[str, float]:
    return {name: float(metric(result.matrix(), result.first_trained())) for name, metric in METRICS.items()}


# The matrix, by hand -----------------------------------------------------------------------------

#   level        1    2    3
# before        .1   .0   .1
# after 1       .6   .2   .1
# after 2       .4   .7   .3
# after 3       .3   .5   .8
FORGETS = [[1, 6, 4, 3], [0, 2, 7, 5], [1, 1, 3, 8]]


def test_the_metrics_of_a_chain_that_forgets():
    assert metrics(chain(FORGETS)) == pytest.approx(
        {
            "average_accuracy": (0.3 + 0.5 + 0.8) / 3,
            "forgetting": ((0.6 - 0.3) + (0.7 - 0.5) + 0.0) / 3,
            "trained_forgetting": ((0.6 - 0.3) + (0.7 - 0.5)) / 2,
            "backward_transfer": ((0.3 - 0.6) + (0.5 - 0.7)) / 2,
            "forward_transfer": ((0.2 - 0.0) + (0.3 - 0.1)) / 2,
        }
    )


def test_forgetting_after_every_stage():
    found = forgetting_by_level(chain(FORGETS).matrix())
    expected = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.3, 0.2, 0.0]]
    assert found.tolist() == [pytest.approx(row) for row in expected]


def test_a_level_that_is_better_than_ever_has_negative_forgetting_in_one_sense_only():
    found = metrics(chain([[0, 5, 7], [0, 0, 5]]))
    assert found["forgetting"] == 0
    assert found["trained_forgetting"] == pytest.approx(-0.2)
    assert found["backward_transfer"] == pytest.approx(0.2)


def test_what_the_model_could_do_before_training_can_be_forgotten():
    found = metrics(chain([[9, 9, 9], [6, 1, 4]]))
    assert found["forgetting"] == pytest.approx((0.0 + 0.2) / 2)
    assert found["trained_forgetting"] == 0  # level 2 is trained last: nothing came after it


def test_the_best_may_come_between_training_and_now():
    found = metrics(chain([[0, 5, 8, 6], [0, 0, 5, 5], [0, 0, 0, 5]]))
    assert found["trained_forgetting"] == pytest.approx(((0.8 - 0.6) + 0.0) / 2)
    assert found["backward_transfer"] == pytest.approx(((0.6 - 0.5) + 0.0) / 2)


def test_the_mixed_baseline_has_no_transfer():
    found = metrics(chain([[1, 5], [0, 4]], trained=[{"1", "2"}]))
    assert found["average_accuracy"] == pytest.approx(0.45) and found["forgetting"] == 0
    assert all(math.isnan(found[name]) for name in ("trained_forgetting", "backward_transfer", "forward_transfer"))


def test_reverse_order_and_levels_never_trained():
    # stage 1 trains on level 2, stage 2 on level 1; nothing trains on level 3
    found = metrics(chain([[1, 2, 6], [1, 8, 5], [3, 4, 1]], trained=[{"2"}, {"1"}]))
    assert found["backward_transfer"] == pytest.approx(0.5 - 0.8)
    assert found["forward_transfer"] == pytest.approx(0.2 - 0.1)
    assert found["forgetting"] == pytest.approx((0.0 + 0.3 + 0.3) / 3)


def test_a_level_counts_from_the_stage_that_trained_on_it_first():
    result = chain([[0, 5, 6, 7], [0, 1, 4, 8]], trained=[{"1"}, {"2"}, {"1", "2"}])
    assert result.first_trained() == (1, 2)
    assert metrics(result)["backward_transfer"] == pytest.approx(((0.7 - 0.5) + (0.8 - 0.4)) / 2)


def test_outcomes_of_the_wrong_shape_are_an_error():
    with pytest.raises(ValueError, match=r"correct must be \[3, num_problems\]"):
        ChainOutcomes("s", 0, ("1",), ("a", "b"), (frozenset("1"), frozenset("1")), (np.zeros((2, 5)),))


def test_outcomes_come_from_the_rows_of_evaluations():
    def rows(**right):
        found = [{"level": name[1:2], "problem_id": name, "tagged": value, "other": 1} for name, value in right.items()]
        return found[::-1] if right["l2a"] else found  # in any order

    evaluations = [
        rows(l1a=False, l1b=True, l2a=False),
        rows(l1a=True, l1b=True, l2a=False),
        rows(l1a=True, l1b=False, l2a=True),
    ]
    result = chain_outcomes("s", 3, [("level_1", ["1"]), ("level_2", ["2"])], evaluations)
    assert result.matrix().tolist() == [[0.5, 0.0], [1.0, 0.0], [0.5, 1.0]]
    assert result.levels == ("1", "2") and result.first_trained() == (1, 2) and result.seed == 3
    with pytest.raises(ValueError, match="evaluations of s, seed 3, must be of the same problems"):
        chain_outcomes("s", 3, [("level_1", ["1"])], [evaluations[0], evaluations[1][:2]])


# Intervals ---------------------------------------------------------------------------------------


def test_the_interval_has_the_width_of_a_binomial():
    # Two levels of 100 problems at 0.5: deviation of the mean sqrt(0.25 / 100 / 2) = 0.0354, and 1.96 of it 0.069
    found = summarize([chain([[5, 5], [5, 5]], num_problems=100, trained=[{"1", "2"}])])["s"]["average_accuracy"]
    assert found is not None and found.mean == 0.5
    assert found.interval == pytest.approx((0.5 - 0.069, 0.5 + 0.069), abs=0.01)


def test_seeds_are_averaged_and_their_spread_is_told():
    found = summarize([chain([[0, 4]], seed=0), chain([[0, 6]], seed=1), chain([[0, 8]], seed=2)])["s"]
    accuracy = found["average_accuracy"]
    assert accuracy is not None
    assert accuracy.mean == pytest.approx(0.6) and accuracy.by_seed == pytest.approx({0: 0.4, 1: 0.6, 2: 0.8})
    assert accuracy.seed_range == pytest.approx(0.4) and accuracy.seed_std == pytest.approx(0.2)
    assert found["backward_transfer"] is None
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


# Statements --------------------------------------------------------------------------------------


def pair(best: list[int], mixed: list[int], num_problems: int = 100):
    """Final accuracies of two settings, in tenths, one per seed."""
    return [
        chain([[0, tenths]], setting, seed, num_problems=num_problems)
        for setting, values in (("replay_ratio=0.3", best), ("mixed", mixed))
        for seed, tenths in enumerate(values)
    ]


def test_a_clear_difference_is_larger_than_the_noise():
    found = compare_with_baseline(pair([6, 6], [5, 5]), "mixed")
    # 10 of 100 problems differ: standard deviation sqrt(0.1 * 0.9 / 100) = 0.03
    assert found.difference == pytest.approx(0.1) and found.interval == pytest.approx((0.04, 0.16), abs=0.015)
    assert found.larger_than_noise
    assert found.statement.startswith("Best by average accuracy: replay_ratio=0.3, +10.0 points against mixed [+")
    assert found.statement.endswith("; between seeds it varies by 0.0 points. That is larger than the noise.")


def test_a_difference_that_few_problems_make_is_not():
    found = compare_with_baseline(pair([6, 6], [5, 5], num_problems=10), "mixed")  # one problem of ten
    assert found.interval[0] <= 0 and not found.larger_than_noise
    assert found.statement.endswith("That is not larger than the noise.")


def test_a_difference_that_seeds_do_not_agree_on_is_not():
    found = compare_with_baseline(pair([8, 5], [4, 5]), "mixed")  # +40 and 0 points
    assert found.difference == pytest.approx(0.2) and found.by_seed == pytest.approx({0: 0.4, 1: 0.0})
    assert found.interval[0] > 0 and not found.larger_than_noise


def test_one_seed_decides_nothing():
    found = compare_with_baseline(pair([9], [1]), "mixed")
    assert not found.larger_than_noise
    assert found.statement.endswith(
        "there is one seed. Whether that is more than the noise cannot be said with one seed."
    )


def test_the_best_of_many_needs_a_wider_interval():
    two = compare_with_baseline(pair([6, 6], [5, 5]), "mixed")
    many = pair([6, 6], [5, 5]) + [
        chain([[0, 1]], f"s{i}", seed, num_problems=100) for i in range(9) for seed in (0, 1)
    ]
    ten = compare_with_baseline(many, "mixed")
    assert ten.best == two.best and ten.interval[0] < two.interval[0] and ten.interval[1] > two.interval[1]


def test_seeds_that_only_one_of_the_two_has_are_left_out():
    found = compare_with_baseline(pair([6, 6, 9], [5, 5]), "mixed")
    assert found.by_seed == pytest.approx({0: 0.1, 1: 0.1})


def test_a_baseline_alone_cannot_be_compared():
    with pytest.raises(ValueError, match=r"chains must be of mixed and of another setting, got \['mixed'\]"):
        compare_with_baseline([chain([[0, 5]], "mixed")], "mixed")


def ratios(losses: dict[float, list[int]]) -> tuple[list[ChainOutcomes], dict[str, float]]:
    """For each ratio and seed, tenths that level 1 loses after its stage."""
    chains = [
        chain([[0, 9, 9 - lost], [0, 0, 9]], f"r={ratio}", seed, num_problems=100)
        for ratio, values in losses.items()
        for seed, lost in enumerate(values)
    ]
    return chains, {f"r={ratio}": ratio for ratio in losses}


def test_forgetting_that_falls_is_told():
    # Forgetting is half of the loss (two levels): 0.3, 0.2, 0.1 at 0, 0.25, 0.5: slope -0.4
    found = trend(*ratios({0.0: [6, 6], 0.25: [4, 4], 0.5: [2, 2]}))
    assert found.slope == pytest.approx(-0.4) and found.falls
    assert found.statement.startswith("Forgetting falls as the replay ratio rises: -4.0 points for each 0.1 [-")


@pytest.mark.parametrize("losses", [{0.0: [2, 2], 0.5: [4, 4]}, {0.0: [3, 3], 0.5: [3, 3]}, {0.0: [8, 2], 0.5: [2, 3]}])
def test_forgetting_that_does_not_fall_is_told_too(losses):
    found = trend(*ratios(losses))
    assert not found.falls and "does not clearly fall" in found.statement


def test_the_baseline_has_no_ratio_and_is_left_out():
    chains, numbers = ratios({0.0: [6, 6], 0.5: [2, 2]})
    with_baseline = [*chains, chain([[0, 9], [0, 9]], "mixed", trained=[{"1", "2"}], num_problems=100)]
    assert trend(with_baseline, numbers) == trend(chains, numbers)
    with pytest.raises(ValueError, match="two different"):
        trend(chains, {"r=0.0": 0.0})
