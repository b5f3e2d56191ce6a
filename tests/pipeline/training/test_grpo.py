"""Every expected number here was worked out by hand; the working stands beside it."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.config import GRPOConfig
from pipeline.training.grpo import grpo_loss, token_weights
from pipeline.training.policy_losses import Sequences

LAWS = settings(max_examples=60, deadline=None, derandomize=True)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=tolerance)


def rows(mask):
    """One sequence per row."""
    return Sequences(torch.arange(len(mask))[:, None].expand_as(mask), mask, len(mask))


# Aggregation -------------------------------------------------------------------------------------

LENGTHS = [[1, 4], [3], [2, 2, 4]]  # completion tokens of the rows of three micro-batches: 6 completions, 16 tokens


def weights_of(lengths, aggregation):
    mask = torch.arange(5)[None, :] < torch.tensor(lengths)[:, None]
    weights = token_weights(
        rows(mask.roll(1, dims=1)), aggregation=aggregation, num_completions=6, num_tokens=16, max_completion_length=8
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
            rows(mask),
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
    weights = token_weights(
        rows(mask), aggregation=aggregation, num_completions=0, num_tokens=0, max_completion_length=8
    )
    assert weights.tolist() == [[0.0] * 3] * 2


# The whole loss ----------------------------------------------------------------------------------

LENGTHS_OF_ALL = [6, 1, 4, 2, 5]
ADVANTAGES = torch.tensor([1.5, -2.0, 0.0, 0.7, -0.4])
EVERYTHING = {"beta": 0.1, "entropy_coef": 0.2}
VARIANTS: list[dict] = [
    *({"algorithm": name, **EVERYTHING} for name in get_args(GRPOConfig.model_fields["algorithm"].annotation)),
    {"policy_loss": "sequence_clip", "loss_aggregation": "token", **EVERYTHING},
    {"policy_loss": "geometric_mean", "loss_aggregation": "constant", **EVERYTHING},
]


def tokens_of(seed: int) -> list[torch.Tensor]:
    """One value for each token of five sequences."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, generator=generator) - 1 for length in LENGTHS_OF_ALL]


def loss_of(settings, layout, values):
    """The loss of one micro-batch.

    Args:
        layout: for every row, the numbers of its sequences, each followed by one position of padding.
        values: logprobs, old logprobs, ref logprobs, weights and entropies: lists of one tensor per sequence.
    """
    width = max(sum(LENGTHS_OF_ALL[number] + 1 for number in row) for row in layout)
    mask, owners = torch.zeros(len(layout), width, dtype=torch.bool), torch.zeros(len(layout), width, dtype=torch.long)
    laid_out = [torch.full((len(layout), width), 1e30) for _ in values]
    for index, row in enumerate(layout):
        start = 0
        for number in row:
            own = slice(start, start + LENGTHS_OF_ALL[number])
            mask[index, own], owners[index, own] = True, number
            for whole, each in zip(laid_out, values, strict=True):
                whole[index, own] = each[number]
            start = own.stop + 1
    logprobs, old, ref, weights, entropy = laid_out
    return grpo_loss(
        settings,
        logprobs,
        old,
        ref,
        advantages=ADVANTAGES,
        sequences=Sequences(owners, mask, 5),
        num_completions=5,
        num_tokens=18,
        max_completion_length=8,
        weights=weights,
        entropy=entropy,
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize(
    "layouts",
    [
        [[[4, 0, 2, 1, 3]]],  # one packed row
        [[[3], [1]], [[0]], [[2], [4]]],  # three padded micro-batches
        [[[1, 4]], [[2, 3, 0]]],  # two packed ones
    ],
    ids=["packed", "split", "split and packed"],
)
def test_the_loss_does_not_depend_on_how_completions_are_laid_out(variant, layouts):
    settings, everything = GRPOConfig(**variant), [[number] for number in range(5)]
    results = []
    for micro_batches in ([everything], layouts):
        logprobs = [each.requires_grad_() for each in tokens_of(0)]
        entropy = [each.requires_grad_() for each in tokens_of(4)]
        values = (logprobs, tokens_of(1), tokens_of(2), tokens_of(3), entropy)
        parts = [loss_of(settings, layout, values) for layout in micro_batches]
        loss = torch.stack([part.loss for part in parts]).sum()
        gradients = [torch.cat(torch.autograd.grad(loss, side, retain_graph=True)) for side in (logprobs, entropy)]
        num_clipped = sum(int(part.clipped.sum()) for part in parts)
        results.append((loss.detach(), *gradients, sum(part.kl.sum() for part in parts), torch.tensor(num_clipped)))
    assert results[0][1].abs().max() > 0.01
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("far", [1e3, 1e30])
def test_hostile_log_ratios_give_a_finite_loss_and_gradient(variant, far):
    """The policy is far above the old one and the reference in one token of each sequence, and far below in another."""
    settings = GRPOConfig(**variant)
    logprobs = [each.requires_grad_() for each in tokens_of(0)]
    hostile = [each.index_fill(0, torch.tensor([0]), far) for each in tokens_of(1)]
    hostile = [each.index_fill(0, torch.tensor([len(each) - 1]), -far) for each in hostile]
    parts = loss_of(settings, [[3, 1], [0, 4], [2]], (logprobs, hostile, hostile, tokens_of(3), tokens_of(4)))
    assert parts.loss.isfinite() and parts.kl.isfinite().all()
    assert all(each.isfinite().all() for each in torch.autograd.grad(parts.loss, logprobs))


def test_terms_are_added_by_hand():
    """One token: ratio 1, advantage 2, weight 1/2, KL with ref 2 p: 2 - ln 2 - 1, entropy 0.7."""
    loss = grpo_loss(
        GRPOConfig(beta=0.1, entropy_coef=0.5),
        torch.tensor([[-1.0]]),
        torch.tensor([[-1.0]]),
        torch.tensor([[-1.0 + math.log(2)]]),
        advantages=torch.tensor([2.0]),
        sequences=rows(torch.ones(1, 1, dtype=torch.bool)),
        num_completions=1,
        num_tokens=1,
        max_completion_length=8,
        weights=torch.tensor([[0.5]]),
        entropy=torch.tensor([[0.7]]),
    ).loss
    assert loss.item() == pytest.approx(-2 * 0.5 + 0.1 * (1 - math.log(2)) - 0.5 * 0.7)
