"""Every expected number here was worked out by hand; the working stands beside it."""

import math

import pytest
import torch

from pipeline.config import GRPOConfig
from pipeline.training.policy_losses import Sequences
from pipeline.training.sampler_weights import effective_sample_frac, sampler_weights

# Two sequences in one row, of 2 and 3 tokens with one of padding between. Geometric means 2 and 1, products 4 and 1.
RATIOS = torch.tensor([[8.0, 0.5, 1.0, 4.0, 0.25, 1.0]])
SEQUENCES = Sequences(torch.tensor([[0, 0, 0, 1, 1, 1]]), torch.tensor([[True, True, False, True, True, True]]), 2)


@pytest.mark.parametrize(
    ("correction", "low", "high", "weights", "clipped"),
    [
        ("none", 0.5, 2.0, [1, 1, 0, 1, 1, 1], ""),
        ("token_truncate", 0.5, 2.0, [2, 0.5, 0, 2, 0.25, 1], "03"),  # TIS: no lower bound
        ("token_mask", 0.5, 5.0, [0, 0.5, 0, 4, 0, 1], "04"),  # IcePop: the ratio inside the band
        ("sequence_truncate", 0.5, 3.0, [3, 3, 0, 1, 1, 1], "01"),
        ("sequence_mask", 0.9, 1.1, [0, 0, 0, 1, 1, 1], "01"),
        ("sequence_mask", 0.9, 2.5, [1, 1, 0, 1, 1, 1], ""),
        ("sequence_mask", 1.0, 2.5, [1, 1, 0, 1, 1, 1], ""),
    ],
)
def test_weights_by_hand(correction, low, high, weights, clipped):
    settings = GRPOConfig(sampler_correction=correction, sampler_ratio_min=low, sampler_ratio_max=high)
    actual = sampler_weights(settings, RATIOS.log(), SEQUENCES)
    torch.testing.assert_close(actual.weights, torch.tensor([weights]).float(), rtol=0, atol=1e-5)
    assert actual.clipped[0].nonzero().flatten().tolist() == [int(index) for index in clipped]


@pytest.mark.parametrize("correction", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_equal_log_probabilities_weigh_one(correction):
    actual = sampler_weights(GRPOConfig(sampler_correction=correction), torch.zeros(1, 6), SEQUENCES)
    assert actual.weights.tolist() == [[1, 1, 0, 1, 1, 1]]
    assert not actual.clipped.any()


def test_the_effective_sample_size_by_hand():
    assert effective_sample_frac(3.0, 3.0, 3) == 1.0  # 1, 1, 1
    assert effective_sample_frac(3.0, 5.0, 4) == pytest.approx(0.45)  # 2, 1, 0, 0: 9 / (4 x 5)
    assert effective_sample_frac(0.0, 0.0, 4) == 0.0
    assert math.isclose(effective_sample_frac(1.0, 1.0, 8), 1 / 8)
