import numpy as np
import pytest

from pipeline.curriculum.comparisons import compare_all, compare_with_baseline, trend, verdict_statement
from pipeline.curriculum.forgetting import ChainAnswers
from tests.support.answers import chain


def pair(best: list[int], mixed: list[int], num_problems: int = 100):
    """Final accuracies of two settings, in tenths, one per seed."""
    return [
        chain([[0, tenths]], setting, seed, num_problems=num_problems)
        for setting, values in (("replay_ratio=0.3", best), ("mixed", mixed))
        for seed, tenths in enumerate(values)
    ]


def test_a_clear_difference_is_larger_than_the_noise():
    comparison = compare_with_baseline(pair([6, 6], [5, 5]), "mixed")
    # 10 of 100 problems differ: standard deviation sqrt(0.1 * 0.9 / 100) = 0.03
    assert comparison.difference == pytest.approx(0.1) and comparison.interval == pytest.approx((0.04, 0.16), abs=0.015)
    assert comparison.larger_than_noise
    assert comparison.statement.startswith("Best by average accuracy: replay_ratio=0.3, +10.0 points against mixed [+")
    assert comparison.statement.endswith("; between seeds it varies by 0.0 points. That is larger than the noise.")


def test_a_difference_of_few_problems_is_not_larger_than_the_noise():
    comparison = compare_with_baseline(pair([6, 6], [5, 5], num_problems=10), "mixed")  # one problem of ten
    assert comparison.interval[0] <= 0 and not comparison.larger_than_noise
    assert comparison.statement.endswith("That is not larger than the noise.")


def test_a_difference_that_seeds_disagree_on_is_not_larger_than_the_noise():
    comparison = compare_with_baseline(pair([8, 5], [4, 5]), "mixed")  # +40 and 0 points
    assert comparison.difference == pytest.approx(0.2) and comparison.by_seed == pytest.approx({0: 0.4, 1: 0.0})
    assert comparison.interval[0] < 0 and not comparison.larger_than_noise


def test_the_interval_is_over_seeds_too():
    comparison = compare_with_baseline(pair([8, 7, 6], [5, 5, 5], num_problems=1000), "mixed")
    # differences 0.3, 0.2 and 0.1: standard error 0.1 / sqrt(3), Student's t 4.303 for 95 % and 3 seeds
    assert comparison.interval == pytest.approx((0.2 - 0.2484, 0.2 + 0.2484), abs=0.005)
    assert not comparison.larger_than_noise


def test_an_interval_ends_where_differences_do():
    comparison = compare_with_baseline(pair([9, 1], [1, 5]), "mixed")
    assert comparison.interval == (-1.0, 1.0)


def test_one_seed_decides_nothing():
    comparison = compare_with_baseline(pair([9], [1]), "mixed")
    assert not comparison.larger_than_noise
    assert comparison.statement.endswith("]; with one seed, noise cannot be ruled out.")


def test_the_best_of_many_needs_a_wider_interval():
    two = compare_with_baseline(pair([6, 6], [5, 5]), "mixed")
    many = pair([6, 6], [5, 5]) + [
        chain([[0, 1]], f"s{i}", seed, num_problems=100) for i in range(9) for seed in (0, 1)
    ]
    ten = compare_with_baseline(many, "mixed")
    assert ten.setting == two.setting and ten.interval[0] < two.interval[0] and ten.interval[1] > two.interval[1]


def test_seeds_that_only_one_of_the_two_has_are_left_out():
    comparison = compare_with_baseline(pair([6, 6, 9], [5, 5]), "mixed")
    assert comparison.by_seed == pytest.approx({0: 0.1, 1: 0.1})


def test_a_baseline_alone_cannot_be_compared():
    with pytest.raises(ValueError, match=r"chains must be of mixed and of another setting, got \['mixed'\]"):
        compare_with_baseline([chain([[0, 5]], "mixed")], "mixed")


def settings(**values: list[int]) -> list[ChainAnswers]:
    """Final accuracies in tenths, one per seed."""
    return [
        chain([[0, tenths]], setting, seed, num_problems=100)
        for setting, tenths_of in values.items()
        for seed, tenths in enumerate(tenths_of)
    ]


def test_every_setting_is_compared_with_the_baseline():
    chains = settings(uniform=[5, 5], worse=[1, 1], better=[9, 9], mixed=[8, 6], same=[5, 5])
    chains.append(chain([[0, 9]], "another seed", 7, num_problems=100))
    comparisons = compare_all(chains, "uniform")
    assert [(c.setting, c.larger_than_noise) for c in comparisons] == [
        ("better", True),
        ("mixed", False),
        ("same", False),
        ("worse", True),
    ]
    assert comparisons[1].by_seed == pytest.approx({0: 0.3, 1: 0.1})


def test_the_variance_over_seeds_is_pooled_over_all_settings():
    chains = [
        chain([[0, tenths]], setting, seed, num_problems=1000)
        for setting, values in {"uniform": [5, 5], "steady": [7, 7], "varies": [4, 6]}.items()
        for seed, tenths in enumerate(values)
    ]
    # The seeds of the three differ by 0, 0 and 0.2, on average by 1/15. Residual sum of squares: half of
    # (1/15)**2 + (1/15)**2 + (2/15)**2, 1/75, on (3 - 1) * (2 - 1) degrees of freedom. Student's t for 97.5 % and 2
    # of them: 6.205. Half a width: 6.205 * sqrt(2 / 150 / 2 seeds) = 0.507
    steady = compare_all(chains, "uniform")[0]
    assert steady.interval == pytest.approx((0.2 - 0.507, 0.2 + 0.507), abs=0.005)
    alone = chain([[0, 2]], "another", 1, num_problems=1000)  # a chain alone of its setting says nothing about noise
    intervals = [compare_all(some, "uniform", num_planned=3)[0].interval for some in (chains, [*chains, alone])]
    assert intervals[1] == pytest.approx(intervals[0])


def test_settings_that_have_not_finished_share_the_5_percent():
    chains = settings(uniform=[5, 5], better=[8, 8])
    narrow, wide = (compare_all(chains, "uniform", num_planned)[0].interval for num_planned in (1, 6))
    assert wide[0] < narrow[0] and wide[1] > narrow[1]
    others = settings(worse=[3, 3], same=[5, 5])
    three = compare_all([*chains, *others], "uniform")[0].interval
    assert three == pytest.approx(compare_all(chains, "uniform", num_planned=3)[0].interval)


def simulated(rng: np.random.Generator, gain: float) -> dict[str, bool]:
    """The settings among six that are called different from the baseline, with three seeds. Seeds differ by 10 points,
    chains of a seed by 5. The first setting gains. The problems are certain, so that the noise is that of the seeds
    alone."""
    names = ["uniform", "gains", "a", "b", "c", "d", "e"]
    accuracies = 0.4 + rng.normal(0, 0.1, (1, 3)) + rng.normal(0, 0.05, (7, 3))
    accuracies[1] += gain
    chains = [
        ChainAnswers(name, seed, ("1",), ("stage",), (frozenset("1"),), (np.array([[0.0], [accuracies[row, seed]]]),))
        for row, name in enumerate(names)
        for seed in range(3)
    ]
    return {c.setting: c.larger_than_noise for c in compare_all(chains, "uniform")}


def test_claims_are_rarely_false_and_a_large_gain_is_found(monkeypatch):
    monkeypatch.setattr("pipeline.curriculum.estimates.NUM_DRAWS", 2)
    rng = np.random.default_rng(0)
    false_claims = [any(simulated(rng, gain=0.0).values()) for _ in range(300)]
    found = [simulated(rng, gain=0.2)["gains"] for _ in range(100)]
    assert np.mean(false_claims) <= 0.06
    assert np.mean(found) >= 0.85


def test_the_best_is_the_best_on_seeds_that_the_baseline_has_too():
    # On seed 0, which is hard, dynamic gains 20 points. Pools gains 10 on both, and its own average is higher: 50 > 40.
    chains = settings(uniform=[2, 6], pools=[3, 7], dynamic=[4])
    best = compare_with_baseline(chains, "uniform")
    assert best.setting == "dynamic" and best.by_seed == pytest.approx({0: 0.2})
    assert best == compare_all(chains, "uniform")[0]


@pytest.mark.parametrize("tenths", [1, 9])
def test_a_setting_that_cannot_be_compared_does_not_count(tenths):
    chains = settings(uniform=[5, 5], better=[8, 8])
    another = chain([[0, tenths]], "another seed", 7, num_problems=100)
    assert compare_with_baseline([*chains, another], "uniform") == compare_with_baseline(chains, "uniform")
    with pytest.raises(ValueError, match="uniform and another setting must have a seed in common, got none"):
        compare_with_baseline([*settings(uniform=[5, 5]), another], "uniform")


def test_the_verdict_says_which_settings_differ_from_the_baseline():
    verdict = verdict_statement(
        compare_all(settings(uniform=[5, 5], worse=[3, 3], better=[8, 8], same=[5, 5]), "uniform")
    )
    better, worse, same = verdict.split("; ")
    assert better.startswith("Better than uniform beyond the noise: better +30.0 [+")
    assert worse.startswith("worse than uniform beyond the noise: worse -20.0 [-")
    assert same == (
        "not to be told apart from uniform: same +0.0 [+0.0, +0.0] (points, 95 % for all settings together, over "
        "problems and seeds)."
    )


def test_a_verdict_of_nothing_better_says_so_first():
    verdict = verdict_statement(compare_all(settings(uniform=[5, 5], same=[5, 5]), "uniform"))
    assert verdict.startswith(
        "No setting is shown to be better than the baseline. Not to be told apart from uniform: same +0.0"
    )


def test_a_verdict_says_nothing_of_seeds_where_there_is_one():
    one = verdict_statement(compare_all(settings(uniform=[3], better=[9], same=[3]), "uniform"))
    assert one.startswith(
        "No setting is shown to be better than the baseline. Not decided against uniform, for lack of "
    )
    assert "a second seed: better +60.0 [+" in one and "] (one seed), same +0.0 [+0.0, +0.0] (one seed) (" in one
    assert one.endswith("(points, 95 % for all settings together, over problems alone).")
    mixed = verdict_statement(compare_all(settings(uniform=[3, 3], better=[9], same=[3, 3]), "uniform"))
    same, better = mixed.split("; ")
    assert same.endswith("Not to be told apart from uniform: same +0.0 [+0.0, +0.0]")
    assert better.startswith("not decided against uniform, for lack of a second seed: better +60.0 [+")
    assert better.endswith(
        "] (one seed) (points, 95 % for all settings together, over problems and seeds, with one seed "
        "over problems alone)."
    )


def ratios(losses: dict[float, list[int]]) -> tuple[list[ChainAnswers], dict[str, float]]:
    """For each ratio and seed, tenths that level 1 loses after its stage."""
    chains = [
        chain([[0, 9, 9 - lost], [0, 0, 9]], f"r={ratio}", seed, num_problems=100)
        for ratio, values in losses.items()
        for seed, lost in enumerate(values)
    ]
    return chains, {f"r={ratio}": ratio for ratio in losses}


def test_falling_forgetting_is_stated():
    # Forgetting is half of the loss (two levels): 0.3, 0.2, 0.1 at 0, 0.25, 0.5: slope -0.4
    fitted = trend(*ratios({0.0: [6, 6], 0.25: [4, 4], 0.5: [2, 2]}))
    assert fitted.slope == pytest.approx(-0.4) and fitted.falls
    assert fitted.statement.startswith("Forgetting falls as the replay ratio rises: -4.0 points for each 0.1 [-")


@pytest.mark.parametrize("losses", [{0.0: [2, 2], 0.5: [4, 4]}, {0.0: [3, 3], 0.5: [3, 3]}, {0.0: [8, 2], 0.5: [2, 3]}])
def test_forgetting_that_does_not_fall_is_stated_too(losses):
    fitted = trend(*ratios(losses))
    assert not fitted.falls and "does not clearly fall" in fitted.statement


def test_the_interval_of_a_trend_is_over_seeds_too():
    # Slopes -0.3, -0.2, -0.1: standard error 0.1 / sqrt(3), Student's t 4.303 for 95 % and 3 seeds: 0.2484.
    # Over problems: six tenths of level 1 lose 1/3, 2/3, 1, 1, 2/3, 1/3 less (in 1, 2, 3, 3, 2, 1 of the seeds), so a
    # problem has a variance of 2.8 / 9 - 0.4**2 = 0.15, and half the mean of 100 a standard deviation of 0.0194.
    fitted = trend(*ratios({0.0: [7, 6, 5], 1.0: [1, 2, 3]}))
    assert fitted.by_seed == pytest.approx({0: -0.3, 1: -0.2, 2: -0.1}) and not fitted.falls
    margin = (0.2484**2 + (1.96 * 0.0194) ** 2) ** 0.5
    assert fitted.interval == pytest.approx((-0.2 - margin, -0.2 + margin), abs=0.005)


def test_one_seed_shows_no_trend():
    fitted = trend(*ratios({0.0: [6], 0.5: [2]}))
    assert fitted.interval[1] < 0 and not fitted.falls
    assert fitted.statement.startswith("Forgetting does not clearly fall as the replay ratio rises: -4.0 points for")
    assert fitted.statement.endswith("]; with one seed, noise cannot be ruled out.")


def drawn(rng: np.random.Generator, setting: str, seed: int) -> ChainAnswers:
    """A chain of one level: its last accuracy differs from the other chains' by chance alone, by 8 points."""
    right = rng.random((3, 100)) < np.array([[0.1], [0.9], [rng.normal(0.5, 0.08)]])
    trained = (frozenset({"1"}), frozenset({"2"}))
    return ChainAnswers(setting, seed, ("1",), ("first", "second"), trained, (right.astype(float),))


def test_seeds_that_differ_by_chance_are_rarely_called_a_trend(monkeypatch):
    monkeypatch.setattr("pipeline.curriculum.estimates.NUM_DRAWS", 200)
    rng, numbers = np.random.default_rng(0), {"a": 0.0, "b": 0.1, "c": 0.3, "d": 0.5}
    searches = [[drawn(rng, setting, seed) for setting in numbers for seed in (0, 1)] for _ in range(160)]
    # A two-sided interval of 95 % is below 0 in 2.5 %: 4 of 160. Over problems alone it is in 20.
    assert sum(trend(chains, numbers).falls for chains in searches) <= 4


def test_the_baseline_has_no_ratio_and_is_left_out():
    chains, numbers = ratios({0.0: [6, 6], 0.5: [2, 2]})
    with_baseline = [*chains, chain([[0, 9], [0, 9]], "mixed", trained=[{"1", "2"}], num_problems=100)]
    assert trend(with_baseline, numbers) == trend(chains, numbers)
    with pytest.raises(ValueError, match="two different"):
        trend(chains, {"r=0.0": 0.0})
