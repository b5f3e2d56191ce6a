"""Every expected number here was worked out by hand; the working stands beside it."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.training.grpo import clipped_policy_loss, equal_rewards, group_advantages, k3_kl, token_weights

LAWS = settings(max_examples=60, deadline=None, derandomize=True)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=tolerance)


# Advantages --------------------------------------------------------------------------------------


def test_advantages_are_rewards_in_population_standard_deviations_from_the_group_mean():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0]])
    # row 0: mean 0.5, std 0.5. row 1: mean 0.5, variance (2.25 + 3 x 0.25) / 4 = 0.75, so 1.5 / sqrt(0.75) = sqrt(3).
    close(group_advantages(rewards), [[1.0, -1.0, -1.0, 1.0], [math.sqrt(3)] + [-1 / math.sqrt(3)] * 3])


def test_the_squares_of_large_rewards_do_not_overflow():
    close(group_advantages(torch.tensor([[3e38, 3e38, -3e38, -3e38]])), [[1.0, 1.0, -1.0, -1.0]])


def test_epsilon_is_added_to_the_standard_deviation():
    close(group_advantages(torch.tensor([[1.0, 0.0]]), eps=0.5), [[0.5, -0.5]])  # 0.5 / (0.5 + 0.5)


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
    normalized = group_advantages(rewards * scale, mask=mask, eps=1e-12)
    torch.testing.assert_close(normalized, group_advantages(rewards, mask=mask, eps=1e-12), rtol=0, atol=1e-9)
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


# Aggregation -------------------------------------------------------------------------------------

LENGTHS = [[1, 4], [3], [2, 2, 4]]  # completion tokens of the rows of three micro-batches: 6 completions, 16 tokens


def weights_of(lengths, aggregation):
    mask = torch.arange(5)[None, :] < torch.tensor(lengths)[:, None]
    weights = token_weights(
        mask.roll(1, dims=1), aggregation=aggregation, num_completions=6, num_tokens=16, max_completion_length=8
    )
    assert (weights[~mask.roll(1, dims=1)] == 0).all()
    assert weights.dtype == torch.float32
    return weights


def test_sequence_weights_give_every_completion_the_same_say():
    for lengths in LENGTHS:
        close(weights_of(lengths, "sequence").sum(dim=1), [1 / 6] * len(lengths))
    assert sum(weights_of(lengths, "sequence").sum().item() for lengths in LENGTHS) == pytest.approx(1)
    close(weights_of([1, 4], "sequence")[1], [0, 1 / 24, 1 / 24, 1 / 24, 1 / 24])  # 1 / (6 completions x 4 tokens)


def test_token_weights_give_every_token_the_same_say():
    for lengths in LENGTHS:
        close(weights_of(lengths, "token").sum(dim=1), [length / 16 for length in lengths])
    assert sum(weights_of(lengths, "token").sum().item() for lengths in LENGTHS) == pytest.approx(1)


def test_constant_weights_do_not_depend_on_any_length():
    for lengths in LENGTHS:
        weights = weights_of(lengths, "constant")
        close(weights[weights > 0], [1 / 48] * sum(lengths))  # 6 completions x max_completion_length 8
    assert sum(weights_of(lengths, "constant").sum().item() for lengths in LENGTHS) == pytest.approx(16 / 48)


@LAWS
@given(
    st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["sequence", "token", "constant"]),
)
def test_weights_sum_to_what_the_aggregation_says_however_completions_are_split(micro_batches, aggregation):
    """Lists of completion lengths. One of 0 tokens was left out: nothing of it is learned from."""
    lengths = [length for batch in micro_batches for length in batch if length]
    assume(lengths)
    total = 0.0
    for batch in micro_batches:
        mask = torch.arange(7)[None, :] < torch.tensor(batch)[:, None]
        weights = token_weights(
            mask,
            aggregation=aggregation,
            num_completions=len(lengths),
            num_tokens=sum(lengths),
            max_completion_length=10,
        )
        assert (weights >= 0).all() and (weights[~mask] == 0).all()
        total += weights.sum().item()
    expected = sum(lengths) / (10 * len(lengths)) if aggregation == "constant" else 1.0
    assert total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_nothing_to_learn_from_weighs_nothing(aggregation):
    mask = torch.zeros(2, 3, dtype=torch.bool)
    weights = token_weights(mask, aggregation=aggregation, num_completions=0, num_tokens=0, max_completion_length=8)
    assert weights.tolist() == [[0.0] * 3] * 2


# Clipping ----------------------------------------------------------------------------------------

# ratio, advantage, loss, clipped?, gradient of the loss with respect to the logprob = -ratio x advantage, or 0
CLIPPING = [
    (1.0, 2.0, -2.0, False, -2.0),
    (1.1, 2.0, -2.2, False, -2.2),  # inside
    (1.5, 2.0, -2.4, True, 0.0),  # good and already more likely: held at 1.2 x 2
    (0.5, 2.0, -1.0, False, -1.0),  # good but less likely: pulled back up
    (0.5, -2.0, 1.6, True, 0.0),  # bad and already less likely: held at 0.8 x 2
    (1.5, -2.0, 3.0, False, 3.0),  # bad but more likely: pushed back down
    (1.5, 0.0, 0.0, False, 0.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "clipped", "gradient"), CLIPPING)
def test_clipping_at_two_tenths(ratio, advantage, loss, clipped, gradient):
    old = torch.tensor([[-1.25, -0.5]])
    logprobs = (old + math.log(ratio)).requires_grad_()
    actual, mask = clipped_policy_loss(logprobs, old, torch.tensor([advantage]), epsilon=0.2)
    actual.sum().backward()
    close(actual.detach(), [[loss] * 2])
    assert mask.tolist() == [[clipped] * 2]
    assert logprobs.grad is not None
    close(logprobs.grad, [[gradient] * 2])
    if clipped:
        assert logprobs.grad.tolist() == [[0.0, 0.0]]  # exactly


def test_a_higher_upper_bound_leaves_the_lower_one():
    old = torch.zeros(3, 1)
    logprobs = torch.tensor([[1.25], [1.5], [0.5]]).log()
    loss, clipped = clipped_policy_loss(logprobs, old, torch.tensor([1.0, 1.0, -1.0]), epsilon=0.2, epsilon_high=0.28)
    close(loss, [[-1.25], [-1.28], [0.8]])
    assert clipped.tolist() == [[False], [True], [True]]


def test_advantages_belong_to_rows():
    loss, _ = clipped_policy_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1.0, -2.0]), epsilon=0.2)
    close(loss, [[-1.0] * 3, [2.0] * 3])


def test_old_logprobs_carry_no_gradient_of_their_own():
    # On the first of mu passes old is logprobs.detach(): the ratio is 1, its gradient is not.
    logprobs = torch.tensor([[-0.3, -2.0]], requires_grad=True)
    loss, clipped = clipped_policy_loss(logprobs, logprobs.detach(), torch.tensor([0.5]), epsilon=0.2)
    loss.sum().backward()
    close(logprobs.grad, [[-0.5, -0.5]])
    assert not clipped.any()


# KL ----------------------------------------------------------------------------------------------


def test_k3_kl_by_hand():
    # p / q of the token: equal: 0. q twice p: 2 - ln 2 - 1. q half of p: 0.5 + ln 2 - 1.
    ref = torch.tensor([[0.25, 0.5, 0.25]]).log()
    policy = torch.tensor([[0.25, 0.25, 0.5]]).log()
    close(k3_kl(policy, ref), [[0.0, 1 - math.log(2), math.log(2) - 0.5]])


def test_k3_kl_is_never_negative_and_averages_to_the_kl():
    policy, ref = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    estimate = k3_kl(policy.log(), ref.log())
    assert (estimate >= 0).all()
    # KL = 0.5 ln 2 + 0 + 0.25 ln 0.5 = 0.25 ln 2
    assert (policy * estimate).sum().item() == pytest.approx(0.25 * math.log(2), abs=1e-6)


def test_k3_kl_pulls_towards_the_reference():
    policy = torch.tensor([[0.25, 0.5]]).log().requires_grad_()
    k3_kl(policy, torch.tensor([[0.5, 0.25]]).log()).sum().backward()
    close(policy.grad, [[-1.0, 0.5]])  # 1 - q / p: 1 - 2 and 1 - 0.5
