import math

import pytest
import torch

from pipeline.models.memory import noise
from pipeline.models.memory.noise import gumbel_noise

SEEDS = torch.tensor([7, 2**62 + 5, 123456789])


def test_the_noise_is_standard_gumbel():
    """Mean: Euler's constant. Standard deviation: pi / sqrt(6). Median: -log log 2."""
    drawn = gumbel_noise(SEEDS, 3, (5000, 16)).flatten()
    assert drawn.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert drawn.std().item() == pytest.approx(math.pi / math.sqrt(6), abs=0.01)
    assert drawn.median().item() == pytest.approx(-math.log(math.log(2)), abs=0.01)
    assert drawn.view(-1, 16).T.corrcoef().fill_diagonal_(0).abs().max() < 0.05  # candidates are independent


def test_an_example_draws_the_same_in_every_batch_and_with_any_padding():
    drawn = gumbel_noise(SEEDS, 3, (9, 4))
    assert torch.equal(gumbel_noise(SEEDS[1:2], 3, (9, 4)), drawn[1:2])
    assert torch.equal(gumbel_noise(SEEDS.flip(0), 3, (12, 4))[:, :9], drawn.flip(0))


def test_examples_layers_and_positions_draw_differently():
    drawn = torch.cat([gumbel_noise(SEEDS, layer, (20, 4)).flatten() for layer in (0, 1, 2)])
    assert drawn.unique().numel() > 0.99 * drawn.numel()


@pytest.mark.parametrize("bits", [0, -1])
def test_the_lowest_and_the_highest_draw_are_finite(monkeypatch, bits):
    """An infinite one would make a softmax NaN: one draw of 17 million, and a step can draw as many."""
    monkeypatch.setattr(noise, "_splitmix", lambda x: torch.full_like(x, bits))
    assert gumbel_noise(SEEDS, 0, (2, 2)).isfinite().all()
