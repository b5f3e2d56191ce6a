"""A layer's reading, worked out by hand: two dimensions, four slots, all of them candidates."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.memory.bank import PADDING
from pipeline.models.memory.memory import ExplicitMemory, Reading
from pipeline.models.memory.noise import gumbel_noise
from tests.support.memories import layer_of, memory_config

EMBEDDING = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
ENTRIES = torch.tensor([[0, PADDING], [1, PADDING], [2, PADDING], [0, 1]])
"""Directions (1, 0), (0, 1), (-1, 0) and (1, 1) / sqrt(2)."""
HIDDEN = torch.tensor([[[3.0, 4.0], [-8.0, 6.0]]])
"""Directions (0.6, 0.8) and (-0.8, 0.6)."""
SEEDS = torch.tensor([5])
HALF_ROOT = 0.5**0.5


def memory(preset: str = "explicitlm", **settings: Any) -> ExplicitMemory:
    """Its fusion adds silu(5 x memory) x memory, elementwise."""
    sizes = {"knowledge_num": 4, "knowledge_length": 2, "knowledge_dim": 2, "num_candidates": 4}
    config = memory_config(preset, **sizes, gate_rank=None, fusion_rank=None, **settings)
    embedding = nn.Embedding.from_pretrained(EMBEDDING.clone())
    own = ExplicitMemory(config, 2, [0], embedding)
    own.bank.entry_of_slot.copy_(torch.tensor([2, 0, 3, 1]))
    own.bank.set_entries(ENTRIES, EMBEDDING)
    fusion = layer_of(own).gated_memory_fusion
    pick = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    fusion.gate.weight.data, fusion.up.weight.data, fusion.down.weight.data = 5 * pick, pick, torch.eye(2)
    return own


def added(x: float) -> float:
    """The value added for one dimension of the memory."""
    return 5 * x / (1 + math.exp(-5 * x)) * x


def read(own: ExplicitMemory, hidden: Tensor = HIDDEN, **arguments: Any) -> tuple[Tensor, Reading]:
    reading = Reading(**arguments)
    with own.reading(reading):
        return own.after_layer(0, hidden) - hidden, reading


def test_evaluation_takes_the_most_similar_entry_and_weighs_it_by_its_similarity():
    """(0.6, 0.8) is closest to (1, 1): 1.4 / sqrt(2). (-0.8, 0.6) is closest to (-1, 0): 0.8. The entry's direction is
    scaled to root mean square 1: (1, 1) and (-sqrt(2), 0)."""
    difference, reading = read(memory())
    found = reading.selections[0]
    assert found.chosen.tolist() == [[2, 0]]  # entries 3 and 2
    torch.testing.assert_close(found.similarity, torch.tensor([[1.4 * HALF_ROOT, 0.8]]))
    first, second = [added(1)] * 2, [added(-(2**0.5)), 0.0]
    expected = torch.tensor([[[x * 1.4 * HALF_ROOT for x in first], [x * 0.8 for x in second]]])
    torch.testing.assert_close(difference, expected, rtol=1e-5, atol=1e-5)


def test_without_a_reading_and_where_no_position_reads_nothing_is_added():
    own = memory()
    assert own.after_layer(0, HIDDEN) is HIDDEN
    difference, _ = read(own, positions=torch.tensor([[False, True]]))
    assert difference[0].any(dim=-1).tolist() == [False, True]


def test_hidden_states_are_recorded_and_left_alone():
    difference, reading = read(memory(), only_hidden=True)
    assert not difference.any()
    assert reading.hidden[0] is HIDDEN and not reading.selections


def test_the_diversity_is_the_mean_similarity_of_different_candidates():
    """Cosines of the six pairs: 0, -1, 1/sqrt(2), 0, 1/sqrt(2), -1/sqrt(2). Of the entries 0, 1 and 3: 0 and twice
    1/sqrt(2)."""
    _, reading = read(memory())
    torch.testing.assert_close(reading.selections[0].diversity, torch.full((1, 2), (HALF_ROOT - 1) / 6))
    own = memory()
    layer_of(own).product_keys.rows.data = torch.tensor([[-1.0], [1.0]])
    layer_of(own).product_keys.columns.data = torch.tensor([[-1.0], [1.0]])
    own.bank.entry_of_slot.copy_(torch.tensor([2, 0, 1, 3]))
    layer_of(own).memory_gate.forward = torch.ones_like
    own.config = own.config.model_copy(update={"num_candidates": 3})
    _, reading = read(own)
    assert reading.selections[0].candidates[0, 0, 0] == 3  # the best slot: row 1, column 1
    assert sorted(own.bank.entry_of_slot[reading.selections[0].candidates[0, 0]].tolist()) == [0, 1, 3]
    torch.testing.assert_close(reading.selections[0].diversity, torch.full((1, 2), 2 * HALF_ROOT / 3))


def test_while_training_the_choice_is_one_hot_and_its_gradient_that_of_the_soft_one():
    own = memory(gumbel_temperature=0.5)
    similarities = torch.tensor([[[0.3, -0.2, 0.9, 0.1]]], requires_grad=True)
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    weights = own._weights(0, similarities, SEEDS)
    noisy = (similarities + gumbel_noise(SEEDS, 0, (1, 4))).detach()[0, 0] / 0.5
    assert weights.detach()[0, 0].round(decimals=5).tolist() == [float(i == noisy.argmax()) for i in range(4)]
    (weights * values).sum().backward()
    soft = noisy.softmax(dim=0)
    assert similarities.grad is not None
    torch.testing.assert_close(similarities.grad[0, 0], soft * (values - (soft * values).sum()) / 0.5)


def test_noise_changes_choices_while_training_only():
    own, hidden = memory(), HIDDEN[:, :1].expand(1, 200, 2)
    chosen = [read(own, hidden, **arguments)[1].selections[0].chosen for arguments in ({}, {"seeds": SEEDS})]
    assert [choice.unique().numel() for choice in chosen] == [1, 4]


def test_a_negative_similarity_closes_the_memory_and_its_gradient():
    """Every entry is (1, 0), the hidden state points to (-1, 0)."""
    own = memory()
    own.bank.token_ids[:-1] = torch.tensor([0, PADDING])
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    difference, reading = read(own, torch.tensor([[[-2.0, 0.0]]]), seeds=SEEDS)
    assert reading.selections[0].similarity.item() == pytest.approx(-1)
    assert not difference.any()
    difference.sum().backward()
    for parameter in own.layers.parameters():
        assert parameter.grad is None or not parameter.grad.any()


def test_an_empty_slot_is_never_chosen():
    """Its similarity would be 0, above that of every entry."""
    own = memory()
    own.bank.entry_of_slot.copy_(torch.tensor([-1, 0, -1, -1]))
    for seeds in (None, SEEDS):
        _, reading = read(own, torch.tensor([[[-2.0, 0.0]] * 50]), seeds=seeds)
        assert reading.selections[0].chosen.unique().tolist() == [1]
    own.bank.entry_of_slot.fill_(-1)
    difference, _ = read(own, seeds=SEEDS)
    assert not difference.any()


def test_every_layer_reads_given_entries_at_every_position():
    """The mean of (1, 0) and (0, 1), of root mean square 1: (1, 1). Of (0, 1) alone: (0, sqrt(2))."""
    own = memory("routed", decode="mean", query_layer=0)
    hidden = HIDDEN.expand(2, -1, -1)
    difference, reading = read(own, hidden, entries=torch.tensor([[[0, 1]], [[1, PADDING]]]))
    expected = torch.tensor([[added(1), added(1)], [0.0, added(2**0.5)]])
    torch.testing.assert_close(difference, expected[:, None].expand(-1, 2, -1), rtol=1e-5, atol=1e-5)
    assert not reading.selections


def test_attention_reads_the_tokens_of_several_entries():
    """Equal weights for tokens 0, 1 and 1 of two entries, padding masked: (1/3, 2/3), of root mean square 1."""
    own = memory("routed", query_layer=0, num_selected=2)
    layer_of(own).memory_attention.query.weight.data.zero_()
    difference, _ = read(own, entries=torch.tensor([[[0, 1], [1, PADDING]]]))
    rms = math.sqrt((1 / 9 + 4 / 9) / 2)
    expected = torch.tensor([added(1 / 3 / rms), added(2 / 3 / rms)])
    torch.testing.assert_close(difference, expected.expand(1, 2, 2), rtol=1e-5, atol=1e-5)
