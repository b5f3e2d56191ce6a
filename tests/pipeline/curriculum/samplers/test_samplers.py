"""Values of every sampler, worked out by hand."""

import json
from collections import Counter
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from pipeline.config import GRPOConfig
from pipeline.config.samplers import DynamicConfig, ScheduleConfig, ThompsonConfig
from pipeline.curriculum.samplers.base import Outcome, deal
from pipeline.curriculum.samplers.dynamic import Filling
from pipeline.curriculum.samplers.history import History
from pipeline.curriculum.samplers.pools import Pools
from pipeline.curriculum.samplers.schedule import level_weights
from pipeline.curriculum.samplers.thompson import Thompson
from pipeline.errors import ConfigError
from pipeline.types import Completion, Problem, ProblemHead, RewardBreakdown, RolloutGroup, WeightId
from tests.support.sampling import asked, heads, result, sampler

SAMPLERS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "dynamic": {},
    "pools": {},
    "thompson": {},
    "target_difficulty": {"target_difficulty": {"difficulty": "measured"}},
    "bandit": {"forgetting_frac": 0.25},
    "schedule": {"source_weights": {"a": 3.0, "b": 1.0}},
}


NO_LEVEL = ProblemHead(2, "x", None, None, "a", True)


def breakdown(total: float, outcome: Any) -> RewardBreakdown:
    return RewardBreakdown(total, {}, outcome)


def group(*rewards: RewardBreakdown) -> RolloutGroup:
    completion = Completion.of((1, 2, 3), (-1.0,) * 3, "")
    return RolloutGroup(Problem("p", (), ""), (1,), (completion,) * len(rewards), WeightId(0, 0), rewards)


RIGHT, WRONG, LATE = breakdown(1.5, "correct"), breakdown(0.5, "incorrect"), breakdown(0.0, "timeout")


@pytest.mark.parametrize(
    ("rewards", "settings", "expected"),
    [
        # Mean 1.25; advantages 0.25 three times and -0.75. Mean absolute value 0.375; standard deviation sqrt(0.1875).
        ((RIGHT, RIGHT, RIGHT, WRONG), {"normalize_std": False}, Outcome(3, 4, 0.75, 0.375, True, 12)),
        ((RIGHT, RIGHT, RIGHT, WRONG), {}, Outcome(3, 4, 0.75, 0.375 / 0.1875**0.5, True, 12)),
        ((RIGHT, RIGHT), {}, Outcome(3, 2, 1.0, 0.0, False, 6)),
        ((RIGHT, LATE), {}, Outcome(3, 1, 1.0, 0.0, False, 6)),  # the late one is left out
        # It counts as it was rewarded.
        ((RIGHT, LATE), {"mask_ungraded": False, "normalize_std": False}, Outcome(3, 1, 1.0, 0.75, True, 6)),
        ((LATE, LATE), {}, Outcome(3, 0, 0.0, 0.0, False, 6)),
        # Equal in float32, which the learner has.
        ((breakdown(0.1 + 0.2, "correct"), breakdown(0.3, "correct")), {}, Outcome(3, 2, 1.0, 0.0, False, 6)),
    ],
)
def test_the_outcome_of_a_group(rewards, settings, expected):
    found = Outcome.of(group(*rewards), 3, GRPOConfig(**settings))
    assert found.mean_abs_advantage == pytest.approx(expected.mean_abs_advantage, rel=1e-5)
    assert found == Outcome(
        **{**{n: getattr(expected, n) for n in Outcome.__slots__}} | {"mean_abs_advantage": found.mean_abs_advantage}
    )


@pytest.mark.parametrize(
    ("weights", "count", "offset", "counts"),
    [
        ((1, 1), 4, 0.0, [2, 2]),
        ((1, 3), 8, 0.9, [2, 6]),
        ((1, 1, 1), 4, 0.0, [1, 1, 2]),  # ends at 1.33, 2.67 and 4
        ((1, 1, 1), 4, 0.5, [1, 2, 1]),
        ((1, 1, 1), 4, 0.7, [2, 1, 1]),
        ((0.1, 0.2, 0.0), 3, 0.0, [1, 2, 0]),
        ((0, 1), 2, 0.99, [0, 2]),
        ((5,), 3, 0.5, [3]),
    ],
)
def test_places_are_dealt_by_weights(weights, count, offset, counts):
    assert deal(weights, count, offset) == counts


def test_uniform_asks_each_problem_once_before_any_twice():
    uniform = sampler("uniform", heads(10))
    rows = [row for step in range(5) for row in uniform.choose(step, 4)]
    assert set(Counter(rows).values()) == {2}
    other = sampler("uniform", heads(10), seed=1)
    assert [row for step in range(5) for row in other.choose(step, 4)] != rows


def filled(rounds: list[str], places: list[str | None], **settings: Any) -> tuple[Filling, list[str]]:
    """Rounds of groups: an upper-case letter teaches something. Stops where no more are asked for."""
    filling: Filling[str] = Filling(DynamicConfig(**settings), places)
    for groups in rounds:
        assert filling.num_rounds == 0 or filling.num_to_ask == len(groups)
        filling.add([(each, each.isupper()) for each in groups])
    assert filling.num_to_ask == 0
    return filling, filling.batch()


def test_dynamic_fills_a_batch_in_rounds():
    # Half of the first round teach something, so four are asked for two places, then for one place of 3 in 8 three.
    filling, batch = filled(["aBcD", "efGh", "Ijk"], [None] * 4)
    assert batch == ["B", "D", "G", "I"]
    # Each is named with the place that was open when it came; the last one when all were taken.
    assert filling.dropped == [(0, "a"), (1, "c"), (2, "e"), (2, "f"), (3, "h"), (3, "j"), (3, "k")]
    assert filling.surplus == []


def test_dynamic_oversamples_and_counts_what_is_left_over():
    """One place is open after a third of a round; 3 x 1.5 groups are asked for it."""
    filling, batch = filled(["aBc", "DEfGh"], ["r", None, None], oversampling=1.5)
    assert batch == ["r", "B", "D"]
    assert filling.dropped == [(1, "a"), (2, "c"), (2, "f"), (2, "h")] and filling.surplus == [(2, "E"), (2, "G")]


def test_dynamic_learns_from_what_it_has_after_the_last_round():
    filling, batch = filled(["abcd", "efghijklmnopqrst"], [None] * 4, max_rounds=2)  # four for each, at most
    assert batch == list("qrst")  # the last that were dropped stand for places that stayed open
    assert filling.dropped == [(0, each) for each in "abcdefghijklmnop"]


def test_dynamic_asks_for_nothing_where_all_of_a_batch_is_replayed():
    assert filled([""], ["r", "s"])[1] == ["r", "s"]


def test_pools_follow_the_latest_solve_rate_and_retire_what_is_solved():
    history = History([0.0] * 6)
    history.observe(10, [result(0, 8), result(1, 6), result(2, 4), result(3, 2), result(4, 0)])
    config = sampler("pools", heads(1))._settings.pools
    pools = Pools(config, history, np.arange(6), 0)
    # Thresholds 0.75 and 0.25; problem 5 was never asked.
    assert [rows.tolist() for rows in pools.pools(11)] == [[1], [2, 5], [3, 4], [0]]
    assert [rows.tolist() for rows in pools.pools(59)] == [[1], [2, 5], [3, 4], [0]]
    assert [rows.tolist() for rows in pools.pools(60)] == [[0, 1], [2, 5], [3, 4], []]  # asked again after 50 steps
    # Five places: one easy, three in the middle, which has two, one hard; the other hard one stands in.
    assert sorted(pools.choose(11, 5)) == [1, 2, 3, 4, 5]
    assert sorted(pools.choose(11, 6)) == [0, 1, 2, 3, 4, 5]  # a retired one where all others are used


def test_every_pool_has_its_share_of_a_batch():
    weights = {"easy_weight": 0.5, "middle_weight": 0.4, "hard_weight": 0.1}
    pools = sampler("pools", heads(30), pools={**weights, "retire_above": 1.0})
    pools.observe(0, [result(row, (7, 4, 1)[row // 10]) for row in range(30)])
    for step in range(1, 6):
        assert Counter(row // 10 for row in pools.choose(step, 10)) == {0: 5, 1: 4, 2: 1}


@pytest.mark.parametrize("scale", [1.0, 2.8])
def test_bounds_are_shares_of_correct_completions_whatever_rewards_are(scale):
    """By default a right completion is worth up to 2.8, and a wrong one with all tags 0.8."""
    right, wrong = breakdown(scale, "correct"), breakdown(0.8 * (scale > 1), "incorrect")
    found = [
        Outcome.of(group(*[right] * count, *[wrong] * (4 - count)), row, GRPOConfig())
        for row, count in enumerate((0, 2, 3))
    ]
    pools = sampler("pools", heads(4))
    pools.observe(0, found)
    (inner,) = pools._samplers.values()
    assert [rows.tolist() for rows in inner.pools(1)] == [[2], [1, 3], [0], []]
    adaptive = sampler("target_difficulty", heads(2, 2))
    adaptive.observe(0, found[1:2])
    assert adaptive._samplers[""].target == 0  # half are correct: the target stays


def test_thompson_counts_completions_and_forgets():
    posterior = Thompson(ThompsonConfig(forgetting=0.5), 2, np.arange(2), 0)
    posterior.observe(3, [result(0, 6)])
    both = np.arange(2)
    assert [values.tolist() for values in posterior.posterior(3, both)] == [[7, 1], [3, 1]]  # 1 + 6 and 1 + 2
    assert [values.tolist() for values in posterior.posterior(4, both)] == [[4, 1], [2, 1]]  # halved each step
    posterior.observe(5, [result(0, 8)])
    assert [values.tolist() for values in posterior.posterior(5, both)] == [[1 + 1.5 + 8, 1], [1 + 0.5, 1]]


def test_thompson_asks_problems_near_the_target():
    thompson = sampler("thompson", heads(4))
    for step in range(5):
        thompson.observe(step, [result(0, 8), result(1, 0), result(2, 4), result(3, 8)])
    assert thompson.choose(5, 1) == [2]


def test_thompson_draws_rates_instead_of_taking_their_means():
    """One problem is known to be near the target; the mean of the other, which nobody tried, is on it."""
    thompson = sampler("thompson", heads(2), thompson={"forgetting": 0.0})
    for step in range(25):
        thompson.observe(step, [result(0, 9, 20)])
    chosen = Counter(thompson.choose(step, 1)[0] for step in range(25, 125))
    assert 70 < chosen[0] < 100


def test_the_target_difficulty_moves_with_the_solve_rate():
    """Levels 1, 2 and 3 have difficulties 0, 0.5 and 1."""
    adaptive = sampler("target_difficulty", heads(2, 2, 2), target_difficulty={"step_size": 0.5, "sensitivity": 2.0})
    (inner,) = adaptive._samplers.values()
    assert sorted(adaptive.choose(0, 2)) == [0, 1]
    adaptive.observe(0, [result(0, 8), result(1, 8)])
    assert inner.target == pytest.approx(0.5 * np.tanh(1.0))  # 0.381: 2 x (1 - 0.5)
    assert sorted(adaptive.choose(1, 2)) == [2, 3]
    adaptive.observe(1, [result(2, 4), result(3, 4)])
    assert inner.target == pytest.approx(0.5 * np.tanh(1.0))  # the solve rate is the target
    for step in range(2, 4):
        adaptive.observe(step, [result(2, 8)])
    assert inner.target == 1.0  # 1.14 is clipped
    assert sorted(adaptive.choose(4, 2)) == [4, 5]


def test_a_measured_difficulty_replaces_that_of_the_level():
    adaptive = sampler("target_difficulty", heads(2, 2), target_difficulty={"difficulty": "measured"})
    adaptive.observe(0, [result(0, 0), result(2, 8), result(3, 4)])  # solve rate 0.5: the target stays 0
    assert sorted(adaptive.choose(1, 2)) == [1, 2]  # difficulties 1, 0, 0, 0.5


def test_the_bandit_prefers_the_category_with_larger_advantages():
    bandit = sampler("bandit", heads(20, 20), bandit={"temperature": 0.5})
    (inner,) = bandit._samplers.values()
    assert inner.probabilities() == [0.5, 0.5]
    bandit.observe(0, [result(0, 4), result(1, 8), result(20, 0)])  # advantages 1 and 0; 0
    assert inner.values == {"1": 0.25, "2": 0.0}  # half of the mean 0.5
    bandit.observe(1, [result(2, 4)])
    assert inner.values == {"1": 0.625, "2": 0.0}  # a category that was not asked keeps its value
    assert inner.probabilities() == pytest.approx([0.777300, 0.222700], abs=1e-6)  # odds e^(0.625 / 0.5) = 3.490


@pytest.mark.parametrize(
    ("settings", "done", "weights"),
    [
        # At x = 0 of three levels: 1, e^(-1/2), e^(-2) with sigma 1.
        ({"sigma": 1.0}, 0.0, [0.574097, 0.348207, 0.077696]),
        ({"sigma": 1.0}, 0.25, [0.274069, 0.451863, 0.274069]),  # sqrt(0.25) x 2 = 1: the middle level
        ({"sigma": 1.0}, 1.0, [0.077696, 0.348207, 0.574097]),
        ({"shape": "cosine"}, 0.0, [2 / 3, 1 / 3, 0]),
        ({"shape": "cosine"}, 0.5, [1 / 3, 1 / 3, 1 / 3]),
        ({"shape": "cosine"}, 1.0, [0, 1 / 3, 2 / 3]),
    ],
)
def test_a_schedule_moves_from_easy_to_hard(settings, done, weights):
    assert level_weights(ScheduleConfig(**settings), 3, done) == pytest.approx(weights, abs=1e-5)


def test_a_schedule_ends_with_the_budget_of_sampled_tokens():
    def levels(max_sampled_tokens: int | None) -> list[float]:
        problems = heads(20, 20, 20)
        schedule, found = sampler("schedule", problems, 100, max_sampled_tokens=max_sampled_tokens), []
        for step in range(4):
            rows = schedule.choose(step, 20)
            found.append(float(np.mean([int(problems[row].level or 0) for row in rows])))
            schedule.observe(step, [result(row, 4) for row in rows])  # 80 tokens each, 1600 a step
        return found

    spent, unbounded = levels(4 * 1600), levels(None)
    assert spent == sorted(spent) and spent[-1] > unbounded[-1] + 0.3


def test_sources_have_their_shares_of_every_batch():
    mixed = sampler("uniform", heads(30, sources=("a", "b", "c")), source_weights={"a": 3.0, "b": 1.0, "c": 0.0})
    for step in range(5):
        assert Counter(row % 3 for row in mixed.choose(step, 4)) == {0: 3, 1: 1}


def test_sources_take_turns_in_what_replaces_dropped_groups():
    """Groups that come when the batch is full are dropped: not always those of the last source."""
    mixed = sampler("dynamic", heads(400, sources=("a", "b")), source_weights={"a": 1.0, "b": 1.0})
    first_half = [row % 2 for step in range(50) for row in mixed.choose_more(step, 16)[:8]]
    assert Counter(first_half)[1] == pytest.approx(200, abs=40)


def test_groups_that_were_cut_off_teach_nothing_where_they_are_masked():
    cut = replace(group(RIGHT, WRONG), completions=(Completion.of((1,), (-1.0,), "", "length"),) * 2)
    assert Outcome.of(cut, 0, GRPOConfig()).has_variance
    assert not Outcome.of(cut, 0, GRPOConfig(mask_truncated=True)).has_variance
    late = replace(cut, completions=(*cut.completions, Completion.of((1,), (-1.0,), "")), rewards=(RIGHT, WRONG, LATE))
    assert not Outcome.of(late, 0, GRPOConfig(mask_truncated=True)).has_variance  # the one that ended is not graded


def test_problems_whose_solve_rate_fell_are_asked_again():
    uniform = sampler("uniform", heads(100), forgetting_frac=0.5)
    uniform.observe(0, [result(0, 8), result(1, 7), result(2, 2), result(3, 8)])
    # They fell by 0.5, by 0.75 and by 0.25, which is noise; the third rose.
    uniform.observe(1, [result(0, 4), result(1, 1), result(2, 3), result(3, 6)])
    assert uniform.history.forgotten().tolist() == [1, 0]
    assert 1 in uniform.choose(2, 2) and {0, 1} <= set(uniform.choose(3, 4))
    uniform.observe(2, [result(1, 6), result(0, 8)])
    assert not len(uniform.history.forgotten())


def test_a_problem_that_stays_below_its_best_is_given_up():
    history = History([0.0])
    found = []
    for step, num_correct in enumerate([8, 2, 2, 2, 2, 2]):
        history.observe(step, [result(0, num_correct)])
        found.append(len(history.forgotten()))
    assert found == [0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_noise_is_seldom_forgetting(rate):
    """The same solve rates in every step: with rows that only had to be below their best, three in four were."""
    history = History([0.0] * 1000)
    shares = []
    for step in range(20):
        history.observe(step, [asked(row, rate, step) for row in range(1000)])
        shares.append(len(history.forgotten()) / 1000)
    assert fmean(shares[1:]) < 0.08


def test_replay_follows_forgetting():
    """Problems of the buffer have rows after the stage's own, and the best solve rates of their own stages."""
    uniform = sampler("uniform", heads(4), forgetting_frac=0.5, replayed_rates=[1.0, 0.9, None, 1.0])
    assert uniform.replayed(0, [4, 6]) == [4, 6]
    uniform.observe(0, [result(0, 0), result(5, 1), result(6, 1), result(7, 8)])  # 6 was not measured before
    assert uniform.replayed(1, [4, 6]) == [4, 5] and uniform.replayed(1, [5, 6]) == [6, 5]
    assert uniform.replayed(1, [5, 5]) == [5, 5]  # a small buffer
    assert uniform.history.forgotten().tolist() == [5] and 5 not in uniform.choose(1, 4)


def test_a_batch_asks_no_problem_twice_because_it_was_forgotten():
    thompson = sampler("thompson", heads(40), forgetting_frac=0.25)
    for step in (0, 2):
        thompson.observe(step, [result(row, 6) for row in range(20)])
        thompson.observe(step + 1, [result(row, 4) for row in range(20)])
    for step in range(4, 24):
        rows = thompson.choose(step, 8)
        assert len(set(rows)) == 8 and set(rows) & set(range(20))


def test_a_small_stage_that_was_forgotten_fills_its_batch():
    uniform = sampler("uniform", heads(3), forgetting_frac=0.5)
    uniform.observe(0, [result(row, 8) for row in range(3)])
    uniform.observe(1, [result(row, 1) for row in range(3)])
    assert len(uniform.choose(2, 8)) == 8


def test_a_source_of_weight_0_needs_no_sampler():
    problems = [*heads(2, 2), ProblemHead(4, "x", "1", None, "b", True)]  # b has one level
    bandit = sampler("bandit", problems, source_weights={"a": 1.0, "b": 0.0})
    assert 4 not in bandit.choose(0, 8)


@pytest.mark.parametrize("name", ["bandit", "schedule", "target_difficulty"])
def test_a_source_of_one_level_can_be_mixed_with_one_of_several(name):
    problems = [*heads(4, 4), *[NO_LEVEL._replace(row=row, source="b") for row in range(8, 12)]]
    mixed = sampler(name, problems, source_weights={"a": 1.0, "b": 1.0})
    for step in range(4):
        rows = mixed.choose(step, 4)
        assert sum(row >= 8 for row in rows) == 2
        mixed.observe(step, [asked(row, 0.5, step) for row in rows])


def test_levels_are_in_the_order_that_the_curriculum_gives():
    problems = [head._replace(level=word) for head, word in zip(heads(3), ("hard", "easy", "medium"), strict=True)]
    words = ["easy", "medium", "hard"]
    schedule = sampler("schedule", problems, 3, levels=words, schedule={"sigma": 0.01, "exponent": 1.0})
    assert [problems[schedule.choose(step, 1)[0]].level for step in range(3)] == words
    climbing = sampler("target_difficulty", problems, levels=words, target_difficulty={"step_size": 0.5})
    for word in words:
        (row,) = climbing.choose(0, 1)
        assert problems[row].level == word
        climbing.observe(0, [result(row, 8)] * 3)


def test_a_narrow_bell_is_on_the_nearest_level():
    assert level_weights(ScheduleConfig(sigma=0.001), 5, 0.5**2) == [0.0, 0.0, 1.0, 0.0, 0.0]
    assert level_weights(ScheduleConfig(sigma=0.001), 4, 0.1) == [0.0, 1.0, 0.0, 0.0]  # at 0.949


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_state_restores_every_choice_and_holds_tried_problems_only(name):
    problems = heads(500, 500, 500, sources=("a", "b"))
    first, second = (sampler(name, problems, **SAMPLERS[name]) for _ in range(2))
    for step in range(6):
        rows = first.choose(step, 8)
        first.observe(step, [asked(row, 0.5, step) for row in rows])
    text = json.dumps(first.state())
    assert len(text) < 10_000
    second.load(json.loads(text))
    for step in range(6, 12):
        rows = first.choose(step, 8)
        assert rows == second.choose(step, 8)
        for each in (first, second):
            each.observe(step, [asked(row, 0.5, step) for row in rows])
    assert first.state() == second.state()


@pytest.mark.parametrize(
    ("name", "problems", "settings", "message"),
    [
        ("bandit", heads(4), {}, "grpo.sampler.name=bandit must have problems of several levels, got ['1']"),
        ("bandit", heads(4, 4), {"bandit": {"categories": "type"}}, "must have problems of several types"),
        ("schedule", heads(4), {}, "grpo.sampler.name=schedule must have problems of several levels"),
        ("target_difficulty", heads(4), {}, "grpo.sampler.name=target_difficulty must have problems of several"),
        ("uniform", heads(4), {"source_weights": {"x": 1.0}}, "source_weights must name all sources of the stage's"),
        ("uniform", heads(4, sources="ab"), {"source_weights": {"a": 1.0}}, "got ['a']: it has ['a', 'b']"),
        ("schedule", [*heads(1, 1), NO_LEVEL], {}, "must have problems of the levels 1, 2 only, got None"),
        ("target_difficulty", heads(1, 1), {"levels": ["2", "3"]}, "must have problems of the levels 2, 3 only, got 1"),
    ],
)
def test_a_sampler_says_what_its_problems_lack(name, problems, settings, message):
    with pytest.raises(ConfigError) as error:
        sampler(name, problems, **settings)
    assert message in str(error.value)
