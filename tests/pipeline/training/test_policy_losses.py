"""Every expected number here was worked out by hand; the working stands beside it."""

import math

import pytest
import torch

from pipeline.training.policy_losses import (
    Sequences,
    cispo_loss,
    clipped_loss,
    geometric_mean_loss,
    k3_kl,
    log_ratios,
    policy_entropy,
    product_ratios,
    sequence_ratios,
)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=tolerance)


def rows(lengths, width=None):
    """One sequence per row."""
    mask = torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]
    return Sequences(torch.arange(len(lengths))[:, None].expand_as(mask), mask, len(lengths))


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
    log_ratio = torch.full((1, 2), math.log(ratio), requires_grad=True)
    actual, mask = clipped_loss(torch.exp(log_ratio), torch.tensor([[advantage]]), (0.8, 1.2))
    actual.sum().backward()
    close(actual.detach(), [[loss] * 2])
    assert mask.tolist() == [[clipped] * 2]
    assert log_ratio.grad is not None
    close(log_ratio.grad, [[gradient] * 2])
    if clipped:
        assert log_ratio.grad.tolist() == [[0.0, 0.0]]  # exactly


def test_a_higher_upper_bound_leaves_the_lower_one():
    ratio, advantages = torch.tensor([[1.25], [1.5], [0.5]]), torch.tensor([[1.0], [1.0], [-1.0]])
    loss, clipped = clipped_loss(ratio, advantages, (0.8, 1.28))
    close(loss, [[-1.25], [-1.28], [0.8]])
    assert clipped.tolist() == [[False], [True], [True]]


# Ratios ------------------------------------------------------------------------------------------


def test_a_ratio_is_1_outside_the_mask_whatever_stands_there():
    hostile = torch.tensor([[-0.5, math.nan, math.inf, -math.inf]], requires_grad=True)
    log_ratio = log_ratios(
        hostile, torch.full((1, 4), math.nan).index_fill(1, torch.tensor([0]), -1.0), rows([1], 4).mask
    )
    log_ratio.exp().sum().backward()
    close(log_ratio.detach(), [[0.5, 0.0, 0.0, 0.0]])
    close(hostile.grad, [[math.exp(0.5), 0.0, 0.0, 0.0]])


def test_ratios_are_float32_and_finite():
    far = torch.tensor([[-1e4, -1e-3, -torch.inf]], dtype=torch.bfloat16)
    log_ratio = log_ratios(far, far.flip(1).nan_to_num(), rows([3]).mask)
    assert log_ratio.dtype == torch.float32
    assert log_ratio.exp().isfinite().all()


LOG_RATIO = [[math.log(2), math.log(8), 0.0], [math.log(0.5), 0.0, 0.0]]
"""Two sequences of 2 and 1 tokens: products 16 and 0.5, geometric means 4 and 0.5."""


@pytest.mark.parametrize(("ratios", "values"), [(sequence_ratios, (4.0, 0.5)), (product_ratios, (16.0, 0.5))])
def test_all_tokens_have_the_ratio_of_their_sequence(ratios, values):
    log_ratio = torch.tensor(LOG_RATIO, requires_grad=True)
    sequences = rows([2, 1], 3)
    ratio = ratios(log_ratio, sequences)
    close(ratio[sequences.mask].detach(), [values[0], values[0], values[1]])
    # The mean over tokens must have the ratio's gradient: of (ab)^(1/2) by log a it is half of it, of ab it is ab.
    (sequences.means(ratio)[:, 0]).sum().backward()
    share = 2 if ratios is sequence_ratios else 1
    close(log_ratio.grad, [[values[0] / share, values[0] / share, 0.0], [0.5, 0.0, 0.0]])


def test_sequences_of_one_row_do_not_mix():
    packed = torch.tensor([[math.log(2), math.log(8), 7.0, math.log(0.5), 7.0]])
    owners = torch.tensor([[1, 1, 1, 0, 1]])  # padding has some owner too
    sequences = Sequences(owners, torch.tensor([[True, True, False, True, False]]), 3)
    assert sequences.lengths.tolist() == [[2, 2, 2, 1, 2]]
    close(sequence_ratios(packed, sequences)[sequences.mask], [4.0, 4.0, 0.5])
    close(product_ratios(packed, sequences)[sequences.mask], [16.0, 16.0, 0.5])


def test_the_product_of_many_ratios_is_finite():
    assert product_ratios(torch.full((1, 500), 20.0), rows([500])).isfinite().all()
    assert product_ratios(torch.full((1, 500), -20.0), rows([500])).isfinite().all()


@pytest.mark.parametrize(
    ("advantage", "loss", "clipped", "gradient"),
    [
        (1.0, -1.5, True, 0.0),  # 4 is held at 1.5
        (-1.0, 4.0, False, 2.0),  # pushed down: the mean over 2 tokens gives each half of 4
    ],
)
def test_gspo_clips_whole_sequences(advantage, loss, clipped, gradient):
    """A token of ratio 2 and one of ratio 8, so 4 for both."""
    log_ratio = torch.tensor([LOG_RATIO[0][:2]], requires_grad=True)
    actual, mask = clipped_loss(sequence_ratios(log_ratio, rows([2])), torch.tensor([[advantage]]), (0.5, 1.5))
    actual.mean().backward()
    close(actual.detach(), [[loss] * 2])
    assert mask.tolist() == [[clipped] * 2]
    close(log_ratio.grad, [[gradient] * 2])


# CISPO -------------------------------------------------------------------------------------------


def test_cispo_weighs_every_token_by_its_clipped_ratio_without_a_gradient_of_it():
    logprobs = torch.tensor([[-0.5, -1.0, -2.0]], requires_grad=True)
    ratio = torch.exp(logprobs - torch.tensor([[-0.5, -1.0 - math.log(7), -2.0 + math.log(4)]]))  # 1, 7, 1/4
    loss, clipped = cispo_loss(logprobs, ratio, torch.tensor([[2.0]]), (0.0, 5.0))
    loss.sum().backward()
    close(loss.detach(), [[1.0, 10.0, 1.0]])  # -weight x 2 x logprob: 1 x 2 x 0.5, 5 x 2 x 1, 1/4 x 2 x 2
    assert clipped.tolist() == [[False, True, False]]
    close(logprobs.grad, [[-2.0, -10.0, -0.5]])


# GMPO --------------------------------------------------------------------------------------------

# advantage, loss, clipped tokens, gradients of the mean loss. Ratios 8, 1/2, 1/8 of one sequence, range [1/4, 4]:
# held at 4, 1/2, 1/8 above 0 (geometric mean (1/4)^(1/3)), and at 8, 1/2, 1/4 below it (1).
GMPO = [
    (1.0, -(0.25 ** (1 / 3)), [True, False, False], [0.0, -(0.25 ** (1 / 3)) / 3, -(0.25 ** (1 / 3)) / 3]),
    (-2.0, 2.0, [False, False, True], [2 / 3, 2 / 3, 0.0]),
    (0.0, 0.0, [False, False, False], [0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(("advantage", "loss", "clipped", "gradients"), GMPO)
def test_gmpo_clips_tokens_and_takes_their_geometric_mean(advantage, loss, clipped, gradients):
    log_ratio = torch.tensor([[8.0, 0.5, 0.125]]).log().requires_grad_()
    actual, mask = geometric_mean_loss(log_ratio, torch.full((1, 3), advantage), rows([3]), (0.25, 4.0))
    actual.mean().backward()
    close(actual.detach(), [[loss] * 3])
    assert mask.tolist() == [clipped]
    close(log_ratio.grad, [gradients])


def test_gmpo_has_the_value_and_gradient_of_its_product():
    """The product is the paper's formula as it is written there, with autograd through it."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    log_ratio = (torch.randn(2, 6, generator=generator) * mask).requires_grad_()
    advantages, low, high = torch.tensor([1.5, -0.5]), 0.67, 1.49
    expected = torch.zeros(())
    for row, own, advantage in zip(log_ratio, mask, advantages, strict=True):
        ratio = row[own].exp()
        product = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage).abs().prod()
        expected = expected - advantage.sign() * product ** (1 / int(own.sum()))
    (expected_gradient,) = torch.autograd.grad(expected, log_ratio)
    sequences = rows([6, 3])
    loss, _ = geometric_mean_loss(log_ratio, advantages[:, None].expand(2, 6), sequences, (low, high))
    total = (loss * sequences.mask / sequences.lengths).sum()
    (gradient,) = torch.autograd.grad(total, log_ratio)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradient, expected_gradient)


# KL ----------------------------------------------------------------------------------------------


def test_k3_kl_by_hand():
    # p / q of the token: equal: 0. q twice p: 2 - ln 2 - 1. q half of p: 0.5 + ln 2 - 1.
    ref = torch.tensor([[0.25, 0.5, 0.25]]).log()
    policy = torch.tensor([[0.25, 0.25, 0.5]]).log()
    close(k3_kl(ref - policy), [[0.0, 1 - math.log(2), math.log(2) - 0.5]])


def test_k3_kl_is_never_negative_and_averages_to_the_kl():
    policy, ref = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    estimate = k3_kl(ref.log() - policy.log())
    assert (estimate >= 0).all()
    # KL = 0.5 ln 2 + 0 + 0.25 ln 0.5 = 0.25 ln 2
    assert (policy * estimate).sum().item() == pytest.approx(0.25 * math.log(2), abs=1e-6)


def test_k3_kl_pulls_towards_the_reference():
    policy = torch.tensor([[0.25, 0.5]]).log().requires_grad_()
    k3_kl(torch.tensor([[0.5, 0.25]]).log() - policy).sum().backward()
    close(policy.grad, [[-1.0, 0.5]])  # 1 - q / p: 1 - 2 and 1 - 0.5


# Entropy -----------------------------------------------------------------------------------------


def test_entropy_and_its_gradient_by_hand():
    # p = (3/4, 1/4): H = ln 4 - 3/4 ln 3; dH / dlogit_i = -p_i (ln p_i + H)
    logits = torch.tensor([[[2 * math.log(3), 0.0]]], requires_grad=True)  # at temperature 2
    entropy = policy_entropy(logits, 2.0)
    entropy.sum().backward()
    value = math.log(4) - 0.75 * math.log(3)
    close(entropy.detach(), [[value]])
    slope = -0.75 * (math.log(0.75) + value) / 2
    close(logits.grad, [[[slope, -slope]]])
