import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.memory.product_keys import ProductKeys, slot_log_probs, soft_label_loss, top_slots
from tests.support.properties import examples


def grid() -> ProductKeys:
    """Two rows and two columns in two dimensions each."""
    keys = ProductKeys(side=2, dim=4)
    keys.rows.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    keys.columns.data = torch.tensor([[3.0, 4.0], [0.0, 2.0]])  # directions (0.6, 0.8) and (0, 1)
    return keys


def test_scores_are_cosines_times_the_temperature():
    rows, columns = grid()(torch.tensor([2.0, 0.0, 0.0, 5.0]), torch.tensor(10.0))
    torch.testing.assert_close(rows, torch.tensor([10.0, 0.0]))
    torch.testing.assert_close(columns, torch.tensor([8.0, 10.0]))


def test_the_best_slots_have_the_highest_sums():
    """Slots 0 to 3 have the scores 10 + 8, 10 + 10, 0 + 8 and 0 + 10."""
    slots, scores = top_slots(torch.tensor([10.0, 0.0]), torch.tensor([8.0, 10.0]), 3)
    assert slots.tolist() == [1, 0, 3]
    assert scores.tolist() == [20.0, 18.0, 10.0]


@examples()
@given(st.integers(2, 12), st.data())
def test_retrieval_is_that_of_brute_force_over_all_slots(side, data):
    count = data.draw(st.integers(1, side**2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20)))
    rows, columns = torch.randn(2, 3, 2, side, generator=generator)
    slots, scores = top_slots(rows, columns, count)
    expected = (rows[..., :, None] + columns[..., None, :]).flatten(-2).topk(count, dim=-1)
    assert torch.equal(scores, expected.values)
    assert torch.equal(slots, expected.indices)


@pytest.mark.parametrize("side", [2, 7, 32])
def test_probabilities_of_slots_are_those_of_one_softmax_over_all(side):
    rows, columns = torch.randn(2, 5, side, generator=torch.Generator().manual_seed(side)) * 3
    slots = torch.arange(side**2).expand(5, -1)
    log_probs = slot_log_probs(rows, columns, slots)
    expected = (rows[:, :, None] + columns[:, None, :]).flatten(1).log_softmax(dim=1)
    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(5))
    torch.testing.assert_close(slot_log_probs(rows, columns, slots[:, 1:3]), expected[:, 1:3])


def test_scores_are_the_target_distribution():
    """Targets 1/4 and 3/4: 0.25 x 1 + 0.75 x 2 = 1.75. One target and padding: 3."""
    log_probs, scores = torch.tensor([[-1.0, -2.0], [-3.0, -9.0]]), torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    assert soft_label_loss(log_probs, scores).item() == pytest.approx((1.75 + 3) / 2)


def test_the_loss_of_equal_scores_is_the_logarithm_of_the_number_of_slots():
    log_probs = slot_log_probs(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([[11]]))
    assert soft_label_loss(log_probs, torch.ones(1, 1)).item() == pytest.approx(math.log(16))
