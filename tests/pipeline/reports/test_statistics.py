import math
import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reports import statistics
from pipeline.reports.statistics import (
    bootstrap_interval,
    compare_paired,
    ks_up_to,
    majority_is_correct,
    mcnemar_p,
    pass_at_k,
    percentile_interval,
    sign_flip_p,
    wilson_interval,
)
from tests.support.properties import examples

shares = st.floats(0, 1)


@pytest.fixture
def few_draws(monkeypatch):
    """A tenth of the draws: the frequencies below do not depend on it."""
    monkeypatch.setattr(statistics, "NUM_DRAWS", 1000)


@st.composite
def samples(draw: st.DrawFn) -> tuple[int, int]:
    """(num_samples, num_correct)"""
    num_samples = draw(st.integers(1, 200))
    return num_samples, draw(st.integers(0, num_samples))


@examples()
@given(samples())
def test_pass_at_k_is_the_share_at_one_and_grows_with_k(counts):
    num_samples, num_correct = counts
    values = [pass_at_k(num_samples, num_correct, k) for k in range(1, num_samples + 1)]
    assert values[0] == pytest.approx(num_correct / num_samples)
    assert values == sorted(values) and values[-1] == float(num_correct > 0)


@examples()
@given(samples(), st.data())
def test_pass_at_k_grows_with_the_number_of_correct_completions(counts, data):
    num_samples, num_correct = counts
    k = data.draw(st.integers(1, num_samples))
    assert pass_at_k(num_samples, num_correct, k) <= pass_at_k(num_samples, min(num_correct + 1, num_samples), k) <= 1


@examples()
@given(samples(), st.integers(2, 10))
def test_a_wilson_interval_contains_the_share_and_shrinks_with_more_problems(counts, times):
    num_problems, num_correct = counts
    share = num_correct / num_problems
    low, high = wilson_interval(share, num_problems)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    narrow_low, narrow_high = wilson_interval(share, num_problems * times)
    assert narrow_high - narrow_low < high - low


@examples()
@given(shares, st.integers(1, 1000))
def test_a_wilson_interval_is_symmetric_in_right_and_wrong(share, num_problems):
    low, high = wilson_interval(share, num_problems)
    assert wilson_interval(1 - share, num_problems) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@examples()
@given(st.lists(shares, min_size=1, max_size=30), st.integers(0, 3))
def test_bootstrap_intervals_are_ordered_nested_and_repeatable(values, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_DRAWS", 500)
        low, high = bootstrap_interval(values, seed=seed)
        inner = bootstrap_interval(values, 0.5, seed)
        assert bootstrap_interval(values, seed=seed) == (low, high)
    assert 0 <= low <= inner[0] <= inner[1] <= high <= 1


@examples()
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_percentiles_are_ordered_and_within_the_replicates(values, confidence):
    low, high = percentile_interval(np.array(values), confidence)
    assert min(values) <= low <= high <= max(values)


@examples()
@given(st.lists(st.tuples(st.sampled_from([None, "7", "8", "9"]), st.booleans()), max_size=12))
def test_only_a_problem_with_a_correct_completion_can_be_won_by_majority(votes):
    answers, correct = [answer for answer, _ in votes], [is_correct for _, is_correct in votes]
    won = majority_is_correct(answers, correct)
    assert not won or any(correct)
    assert won or 2 * sum(correct) <= len(correct)


@examples()
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_symmetric_and_a_probability(only_a, only_b):
    assert 0 < mcnemar_p(only_a, only_b) == mcnemar_p(only_b, only_a) <= 1


@examples()
@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]), max_size=10))
def test_a_sign_flip_p_ignores_signs_order_and_ties(changes):
    p = sign_flip_p(changes)
    assert 0 < p <= 1
    assert sign_flip_p([-change for change in changes]) == sign_flip_p([*reversed(changes), 0.0]) == p


@examples()
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_swapping_two_models_swaps_the_verdict(answers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_DRAWS", 500)
        a, b = [float(x) for x, _ in answers], [float(y) for _, y in answers]
        forward, backward = compare_paired("a", "b", a, b, single=True), compare_paired("b", "a", b, a, single=True)
    opposite = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    assert backward.verdict == opposite[forward.verdict] and backward.p == forward.p
    assert backward.difference == pytest.approx(-forward.difference)
    assert (backward.num_only_a, backward.num_only_b) == (forward.num_only_b, forward.num_only_a)


@pytest.mark.parametrize(
    ("num_samples", "num_correct", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),  # 1 - C(3, 2) / C(4, 2) = 1 - 3 / 6
        (4, 2, 2, 5 / 6),  # 1 - 1 / 6
        (4, 3, 2, 1.0),  # only one is wrong
        (10, 3, 5, 11 / 12),  # 1 - 21 / 252
    ],
)
def test_pass_at_k_by_hand(num_samples, num_correct, k, expected):
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_the_published_estimator_and_the_share_of_all_draws():
    def published(n: int, c: int, k: int) -> float:  # the numerically stable form of the Codex paper's figure 3
        return 1.0 if n - c < k else 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))

    for n in (1, 5, 9):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([index < c for index in range(n)], k))
                share = sum(map(any, draws)) / len(draws)
                assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12) == pytest.approx(published(n, c, k))


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_needs_k_completions(k):
    with pytest.raises(ValueError, match="k must be from 1 to 4"):
        pass_at_k(4, 2, k)


def test_ks():
    assert [ks_up_to(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["7", "8", "8"], [True, False, False], False),
        (["7", "7.0", "8"], [True, True, False], True),  # different spellings of the right answer vote together
        (["8", "7"], [False, True], False),  # a tie goes to the first
        (["7", "8"], [True, False], True),
        ([None, None, "7"], [False, False, True], True),  # a missing answer does not vote
        ([None, None], [False, False], False),
    ],
)
def test_the_majority(answers, correct, expected):
    assert majority_is_correct(answers, correct) is expected


def test_wilson_interval():
    # 8 of 10: center (0.8 + 0.19208) / 1.38416 = 0.71674, half 1.96 / 1.38416 x sqrt(0.016 + 0.009604) = 0.22658
    assert wilson_interval(0.8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert wilson_interval(0.0, 50) == pytest.approx((0.0, 0.07135), abs=1e-4)
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("true_share", [0.02, 0.3, 0.7])
def test_wilson_intervals_hold_the_true_share_95_times_in_100(true_share):
    """The exact coverage: the binomial probability of all counts whose interval holds the share. For a single n it
    oscillates around 95 %; the mean over many n is nominal."""
    coverages = []
    for n in range(100, 400, 7):
        counts = [c for c in range(n + 1) if wilson_interval(c / n, n)[0] <= true_share <= wilson_interval(c / n, n)[1]]
        coverages.append(sum(math.comb(n, c) * true_share**c * (1 - true_share) ** (n - c) for c in counts))
    assert 0.94 < sum(coverages) / len(coverages) < 0.965


@pytest.mark.parametrize(("a", "b", "problems"), [(0.5, 1.0, 150), (0.5, 1.0, 30), (0.1, 2.0, 30), (0.1, 2.0, 10)])
def test_bootstrap_intervals_hold_the_true_mean_95_times_in_100(few_draws, a, b, problems):
    """300 evaluations with 8 completions per problem, whose success rate is drawn from Beta(a, b): many are never
    solved."""
    draw = np.random.default_rng(0)
    held = 0
    for index in range(300):
        shares = draw.binomial(8, draw.beta(a, b, problems)) / 8
        low, high = bootstrap_interval(shares.tolist(), seed=index)
        held += low <= a / (a + b) <= high
    assert held / 300 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


def test_the_interval_of_unsolved_problems_is_not_of_width_zero():
    low, high = bootstrap_interval([0.0] * 30)
    assert low == 0.0 and 0.05 < high < 0.15  # Wilson for 0 of 30: 0.114


def test_mcnemar_by_hand():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(0, 6) == pytest.approx(2 / 64)
    assert mcnemar_p(2, 8) == mcnemar_p(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)


def _answers(only_a: int, only_b: int, both: int = 20, neither: int = 30) -> tuple[list[float], list[float]]:
    pairs = [(1.0, 0.0)] * only_a + [(0.0, 1.0)] * only_b + [(1.0, 1.0)] * both + [(0.0, 0.0)] * neither
    random.Random(0).shuffle(pairs)
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_a_clear_difference_is_called_better_or_worse():
    a, b = _answers(2, 18)
    paired = compare_paired("base", "tuned", a, b, single=True)
    assert (paired.verdict, paired.num_only_a, paired.num_only_b, paired.num_problems) == ("better", 2, 18, 70)
    assert paired.difference == pytest.approx(16 / 70) and paired.interval[0] > 0
    assert paired.sentence.startswith("tuned is better than base: +22.9 points [+")
    assert compare_paired("base", "tuned", b, a, single=True).verdict == "worse"


def test_a_difference_within_the_noise_gets_no_verdict():
    paired = compare_paired("base", "tuned", *_answers(6, 9), single=True)
    assert paired.verdict == "cannot tell"
    assert paired.sentence.startswith("Cannot tell tuned from base: +4.6 points")  # 3 / 65
    same = compare_paired("base", "copy", *_answers(0, 0), single=True)
    assert (same.verdict, same.p, same.interval) == ("cannot tell", 1.0, (0.0, 0.0))


def test_many_comparisons_share_the_five_percent():
    a, b = _answers(2, 10)  # p = 0.039
    assert compare_paired("a", "b", a, b, single=True).verdict == "better"
    assert compare_paired("a", "b", a, b, single=True, num_comparisons=3).verdict == "cannot tell"


def test_the_sign_flip_test_by_hand():
    assert sign_flip_p([]) == sign_flip_p([0.0, 0.0]) == sign_flip_p([0.125]) == 1.0
    assert sign_flip_p([0.25, 0.25, 0.5]) == pytest.approx(2 / 8)  # all of one sign: 2 of 8 are as far from 0
    assert sign_flip_p([0.25, -0.25]) == 1.0
    assert sign_flip_p([0.25] * 40) < 0.001


def test_several_completions_are_judged_by_sign_flips():
    a = [0.0, 0.25, 0.5, 0.5, 0.75] * 12
    paired = compare_paired("a", "b", a, [value + 0.25 for value in a], single=False)
    assert (paired.test, paired.verdict) == ("sign-flip", "better") and paired.interval == pytest.approx((0.25, 0.25))
    one = compare_paired("a", "b", [0.125], [0.25], single=False)
    assert one.verdict == "cannot tell" and one.p == 1.0


@pytest.mark.parametrize("problems", [5, 30])
def test_false_alarms_on_several_completions_are_as_rare_as_promised(few_draws, problems):
    draw = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        a, b = draw.binomial(8, draw.beta(0.5, 1.0, problems), (2, problems)) / 8
        alarms += compare_paired("a", "b", a.tolist(), b.tolist(), single=False).verdict != "cannot tell"
    assert alarms / 200 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_a_comparison_needs_the_same_problems():
    with pytest.raises(ValueError, match="the same problems, got 2 and 1"):
        compare_paired("a", "b", [0.0, 1.0], [1.0], single=True)


def test_false_alarms_are_as_rare_as_promised():
    """600 comparisons of two equally good models. McNemar's exact test is conservative: never above 5 %."""
    draw = np.random.default_rng(1)
    alarms = 0
    for _ in range(600):
        a, b = (draw.random((2, 120)) < 0.4).astype(int)
        alarms += mcnemar_p(int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())) < 0.05
    assert alarms / 600 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
