"""Every expected number here was worked out by hand; the working stands beside it."""

import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import GRPOConfig
from pipeline.training.advantages import advantages_of, equal_rewards, group_normalized, overlong_penalties

LAWS = settings(max_examples=60, deadline=None, derandomize=True)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=tolerance)


def everything(rewards):
    return torch.ones_like(rewards, dtype=torch.bool)


def group_advantages(rewards, mask=None, **chosen):
    return advantages_of(GRPOConfig(**chosen), rewards, everything(rewards) if mask is None else mask, list)


# Of a group --------------------------------------------------------------------------------------


def test_advantages_are_rewards_in_population_standard_deviations_from_the_group_mean():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0]])
    # row 0: mean 0.5, std 0.5. row 1: mean 0.5, variance (2.25 + 3 x 0.25) / 4 = 0.75, so 1.5 / sqrt(0.75) = sqrt(3).
    close(group_advantages(rewards), [[1.0, -1.0, -1.0, 1.0], [math.sqrt(3)] + [-1 / math.sqrt(3)] * 3])


def test_the_squares_of_large_rewards_do_not_overflow():
    close(group_advantages(torch.tensor([[3e38, 3e38, -3e38, -3e38]])), [[1.0, 1.0, -1.0, -1.0]])


def test_epsilon_is_added_to_the_standard_deviation():
    centered = torch.tensor([[0.5, -0.5]])
    close(group_normalized(centered, everything(centered), eps=0.5), [[0.5, -0.5]])  # 0.5 / (0.5 + 0.5)


def test_dr_grpo_only_centers():
    rewards = torch.tensor([[3.0, 0.0, 0.0, 1.0]])
    close(group_advantages(rewards, normalize_std=False), [[2.0, -1.0, -1.0, 0.0]])


def test_masked_completions_count_for_nothing():
    rewards = torch.tensor([[1.0, 0.0, 9.0], [1.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    # row 0: mean 0.5 and std 0.5 of the first two. row 1: one alone has nothing to be compared with.
    close(group_advantages(rewards, mask=mask), [[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    close(group_advantages(rewards, mask=mask, normalize_std=False), [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]])


def test_a_group_with_every_completion_masked_gives_nothing():
    rewards, mask = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2, dtype=torch.bool)
    assert group_advantages(rewards, mask=mask).tolist() == [[0.0, 0.0]]
    assert equal_rewards(rewards, mask).tolist() == [True]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1 * 3, 0.1, 1 / 3, -0.7, 1e6 / 7])
@pytest.mark.parametrize("size", [2, 3, 7, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_exactly_no_advantage(value, size, dtype):
    rewards = torch.full((1, size), value, dtype=dtype)
    assert group_advantages(rewards).tolist() == [[0.0] * size]  # not 1e-8 / 1e-6: the mean of 3 x 0.1 rounds
    assert group_advantages(rewards, normalize_std=False).tolist() == [[0.0] * size]


def test_equal_rewards_beside_a_masked_one_give_exactly_no_advantage():
    rewards, mask = torch.tensor([[0.1, 0.1, 0.1, 5.0]]), torch.tensor([[True, True, True, False]])
    assert group_advantages(rewards, mask=mask).tolist() == [[0.0] * 4]


def test_equal_rewards_looks_at_each_group_alone():
    rewards = torch.tensor([[1.0, 1.0, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    assert equal_rewards(rewards).tolist() == [False, True, False]
    assert equal_rewards(rewards, mask).tolist() == [False, True, True]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2, 2)])
def test_rewards_must_come_in_groups_of_two_or_more(shape):
    with pytest.raises(ValueError, match="group_size >= 2"):
        group_advantages(torch.zeros(shape))


@st.composite
def groups(draw):
    """Rewards [G, N] in eighths, with a mask of the same shape."""
    size = draw(st.integers(2, 6))
    rows = st.lists(st.integers(-16, 16), min_size=size, max_size=size)
    rewards = torch.tensor(draw(st.lists(rows, min_size=1, max_size=4)), dtype=torch.float64) / 8
    flags = draw(st.lists(st.booleans(), min_size=rewards.numel(), max_size=rewards.numel()))
    return rewards, torch.tensor(flags).view_as(rewards)


@LAWS
@given(groups(), st.booleans())
def test_advantages_of_a_group_sum_to_zero_and_keep_the_order_of_rewards(group, normalize_std):
    rewards, mask = group
    advantages = group_advantages(rewards, mask=mask, normalize_std=normalize_std)
    assert advantages.sum(dim=1).abs().max() < 1e-9
    assert (advantages[~mask] == 0).all()
    for row, kept, own in zip(rewards, mask, advantages, strict=True):
        assert row[kept][own[kept].argsort()].equal(row[kept].sort().values)


@LAWS
@given(groups(), st.booleans(), st.integers(-80, 80))
def test_a_reward_that_all_completions_get_changes_no_advantage(group, normalize_std, shift):
    rewards, mask = group
    shifted = group_advantages(rewards + shift / 8, mask=mask, normalize_std=normalize_std)
    torch.testing.assert_close(
        shifted, group_advantages(rewards, mask=mask, normalize_std=normalize_std), rtol=0, atol=1e-9
    )


@LAWS
@given(groups(), st.sampled_from([0.125, 0.5, 3.0, 100.0]))
def test_the_scale_of_rewards_counts_only_without_division_by_the_spread(group, scale):
    rewards, mask = group
    normalized = group_advantages(rewards * scale, mask=mask)
    torch.testing.assert_close(normalized, group_advantages(rewards, mask=mask), rtol=0, atol=2e-4)  # epsilon
    centered = group_advantages(rewards, mask=mask, normalize_std=False)
    torch.testing.assert_close(
        group_advantages(rewards * scale, mask=mask, normalize_std=False), centered * scale, rtol=0, atol=1e-9
    )


@LAWS
@given(groups(), st.booleans(), st.randoms(use_true_random=False))
def test_advantages_move_with_their_completions(group, normalize_std, draw):
    rewards, mask = group
    order = draw.sample(range(rewards.shape[1]), rewards.shape[1])
    moved = group_advantages(rewards[:, order], mask=mask[:, order], normalize_std=normalize_std)
    expected = group_advantages(rewards, mask=mask, normalize_std=normalize_std)[:, order]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


# Leave-one-out -----------------------------------------------------------------------------------

RLOO = {"algorithm": "rloo"}


def test_a_reward_is_compared_with_the_mean_of_the_others():
    # 3 - (0 + 0 + 1) / 3 = 8 / 3; 0 - (3 + 0 + 1) / 3 = -4 / 3; 1 - (3 + 0 + 0) / 3 = 0
    close(group_advantages(torch.tensor([[3.0, 0.0, 0.0, 1.0]]), **RLOO), [[8 / 3, -4 / 3, -4 / 3, 0.0]])


def test_masked_completions_are_not_among_the_others():
    rewards = torch.tensor([[1.0, 0.0, 9.0], [1.0, 9.0, 9.0], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    # row 0: 1 - 0 and 0 - 1. row 1: one alone has no others.
    close(group_advantages(rewards, mask, **RLOO), [[1.0, -1.0, 0.0], [0.0] * 3, [0.0] * 3])


@LAWS
@given(groups())
def test_leave_one_out_is_what_a_loop_over_completions_gives(group):
    rewards, mask = group
    advantages = group_advantages(rewards, mask, **RLOO)
    for row, kept, own in zip(rewards.tolist(), mask.tolist(), advantages.tolist(), strict=True):
        for index, reward in enumerate(row):
            others = [row[i] for i in range(len(row)) if kept[i] and i != index]
            expected = reward - sum(others) / len(others) if kept[index] and others else 0.0
            assert own[index] == pytest.approx(expected, abs=1e-12)


# Over the whole batch ----------------------------------------------------------------------------

GLOBAL = GRPOConfig(algorithm="reinforce_plus_plus")


def test_rewards_are_compared_with_the_whole_batch():
    # mean 1, deviations 2, -1, -1, 0, squares 6 / 4 = 1.5
    rewards, scale = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1 / math.sqrt(1.5)
    close(advantages_of(GLOBAL, rewards, everything(rewards), list), [[2 * scale, -scale], [-scale, 0.0]])


def test_a_group_baseline_can_be_divided_by_the_spread_over_the_batch():
    # centred 1, -1 and 0, 0: squares 2 / 4 = 0.5
    rewards, scale = torch.tensor([[2.0, 0.0], [5.0, 5.0]]), 1 / math.sqrt(0.5)
    close(group_advantages(rewards, normalize_over="batch"), [[scale, -scale], [0.0, 0.0]])


def test_masked_completions_are_not_in_the_batch():
    rewards = torch.tensor([[3.0, 0.0, 9.0], [0.0, 1.0, -9.0], [7.0, 7.0, 7.0]])
    mask, scale = torch.tensor([[True, True, False]] * 2 + [[False] * 3]), 1 / math.sqrt(1.5)
    expected = [[2 * scale, -scale, 0.0], [-scale, 0.0, 0.0], [0.0] * 3]
    close(advantages_of(GLOBAL, rewards, mask, list), expected)


@pytest.mark.parametrize("value", [0.1, 1 / 3, -0.7, 1e6 / 7])
def test_equal_rewards_of_a_batch_give_exactly_no_advantage(value):
    rewards = torch.full((7, 3), value)
    assert (advantages_of(GLOBAL, rewards, everything(rewards), list) == 0).all()


def test_a_batch_without_graded_completions_gives_nothing():
    rewards = torch.ones(2, 2)
    assert (advantages_of(GLOBAL, rewards, ~everything(rewards), list) == 0).all()


def test_two_workers_have_the_statistics_of_one():
    """The second has nothing graded in one group, and other rewards: its own mean would be another."""
    rewards = torch.tensor([[3.0, 0.0, 9.0], [0.0, 1.0, 2.0], [7.0, 7.0, 7.0], [-2.0, 5.0, 0.1]])
    mask = torch.tensor([[True, True, False], [True] * 3, [False] * 3, [True, False, True]])
    meet, terms = Barrier(2, timeout=30), {}

    def advantages_on(rank: int) -> torch.Tensor:
        def sum_over_ranks(values):
            terms[rank] = values
            meet.wait()
            sums = [sum(pair) for pair in zip(terms[0], terms[1], strict=True)]
            meet.wait()
            return sums

        own = slice(2 * rank, 2 * rank + 2)
        return advantages_of(GLOBAL, rewards[own], mask[own], sum_over_ranks)

    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(advantages_on, range(2)))
    torch.testing.assert_close(torch.cat(parts), advantages_of(GLOBAL, rewards, mask, list), rtol=1e-6, atol=1e-6)


# Overlong completions ----------------------------------------------------------------------------


def test_the_soft_punishment_rises_over_the_buffer():
    """The buffer is the last 5 of 20 tokens: nothing up to 15, all at 20, and (17 - 15) / 5 of it between."""
    lengths = torch.tensor([[1, 15, 16], [17, 19, 20]])
    close(overlong_penalties(lengths, 20, 5, 1.0), [[0.0, 0.0, 0.2], [0.4, 0.8, 1.0]])
    close(overlong_penalties(lengths, 20, 5, 0.5), [[0.0, 0.0, 0.1], [0.2, 0.4, 0.5]])
    close(overlong_penalties(lengths, 20, 0, 1.0), [[0.0] * 3] * 2)
