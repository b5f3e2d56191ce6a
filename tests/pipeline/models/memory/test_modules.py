"""Values worked out by hand, in one or two dimensions."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.memory.modules import (
    EntryAttention,
    GatedMemoryFusion,
    LowRankLinear,
    MemoryGate,
    MemoryNorm,
    ResidualBlock,
    initialize,
)

SILU_1, SILU_2 = 1 / (1 + math.exp(-1)), 2 / (1 + math.exp(-2))
PHI_1 = 0.8413447460685429
"""The normal distribution's cumulative probability at 1: GELU(1), and 1 + GELU(-1)."""


def set_weights(module: nn.Module, **values: list) -> None:
    for name, value in values.items():
        module.get_parameter(name.replace("__", ".")).data = torch.tensor(value, dtype=torch.float32)


def assert_values(actual: Tensor, expected: list) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-5)


def test_the_norm_divides_by_the_root_mean_square():
    norm = MemoryNorm(2, eps=1e-6)
    set_weights(norm, weight=[1, 2])
    rms = math.sqrt((9 + 16) / 2)
    assert_values(norm(torch.tensor([3.0, 4.0])), [3 / rms, 8 / rms])


def test_a_low_rank_map_is_two_matrices_with_one_bias():
    low = LowRankLinear(2, 2, rank=1, bias=True)
    set_weights(low, down__weight=[[1, 2]], up__weight=[[3], [4]], up__bias=[0.5, 0])
    assert_values(low(torch.tensor([1.0, 1.0])), [3 * 3 + 0.5, 3 * 4])


def test_the_residual_block():
    """(1, 3) is normalized to (-1, 1). Inside: -1, 1, 0 + 1 and -1 + 1."""
    block = ResidualBlock(2, rank=None)
    set_weights(block, up__weight=[[1, 0], [0, 1], [0, 0], [1, 1]], up__bias=[0, 0, 1, 0])
    set_weights(block, down__weight=[[1, 0, 0, 5], [0, 1, 1, 5]], down__bias=[0, 0.5])
    assert_values(block(torch.tensor([1.0, 3.0])), [1 + PHI_1 - 1, 3 + 2 * PHI_1 + 0.5])


def test_the_gate_projects_transforms_normalizes_and_projects():
    """(1, 3) is swapped to (3, 1); the block adds (0, 4) to it; (3, 5) is normalized to (-1, 1)."""
    gate = MemoryGate(2, knowledge_dim=2, rank=None)
    first, block, _, last = gate.query
    set_weights(first, weight=[[0, 1], [1, 0]])
    set_weights(block, down__weight=[[0] * 4, [0] * 4], down__bias=[0, 4])
    set_weights(last, weight=[[2, 0], [1, 1]])
    assert_values(gate(torch.tensor([1.0, 3.0])), [-2.0, 0.0])


@pytest.mark.parametrize(("learned", "used"), [(10.0, 10.0), (0.5, 1.0), (1000.0, 100.0)])
def test_the_temperature_is_clamped(learned, used):
    gate = MemoryGate(2, knowledge_dim=2, rank=None)
    assert gate.temperature.item() == pytest.approx(10)
    gate.log_temperature.data = torch.tensor(math.log(learned))
    assert gate.temperature.item() == pytest.approx(used)


def test_the_fusion_is_a_swiglu_of_hidden_state_and_memory():
    """For (1, 2) and (3, -1): gate 1 and 3 - 1, up 2 and -1."""
    fusion = GatedMemoryFusion(2, rank=None)
    set_weights(fusion, gate__weight=[[1, 0, 0, 0], [0, 0, 1, 1]], up__weight=[[0, 1, 0, 0], [0, 0, 0, 1]])
    set_weights(fusion, down__weight=[[1, 1], [0, 2]])
    added = fusion(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0]))
    assert_values(added, [2 * SILU_1 - SILU_2, -2 * SILU_2])


def attention() -> EntryAttention:
    """Over entries of two tokens: queries are the first dimension, keys the second."""
    module = EntryAttention(2, dim=1, length=2)
    set_weights(module, query__weight=[[1, 0]], key__weight=[[0, 1]])
    return module


HIDDEN, LOG_3 = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]]), math.log(3)
VECTORS = torch.tensor([[[1.0, 0.0], [0.0, LOG_3]]])


def test_attention_weighs_the_embeddings_of_an_entry():
    """Scores 0 and log 3 at the first position, 0 and 2 log 3 at the second: weights 1 : 3 and 1 : 9."""
    read = attention()(HIDDEN, VECTORS, torch.ones(1, 2, dtype=torch.bool))
    assert_values(read, [[[1 / 4, 3 / 4 * LOG_3], [1 / 10, 9 / 10 * LOG_3]]])


def test_attention_never_sees_padding():
    assert_values(attention()(HIDDEN, VECTORS, torch.tensor([[True, False]])), [[[1, 0], [1, 0]]])


def test_attention_knows_the_place_of_a_token_in_its_entry():
    """Two entries have two tokens with equal embeddings; their first tokens get log 3 more."""
    module = attention()
    set_weights(module, position=[[LOG_3], [0]])
    vectors = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]])
    read = module(HIDDEN[:, :1], vectors, torch.ones(1, 4, dtype=torch.bool))
    assert_values(read, [[[3 / 8 * 1 + 1 / 8 * 2 + 3 / 8 * 3 + 1 / 8 * 4, 0]]])


def test_scores_are_divided_by_the_root_of_their_dimensions():
    module = EntryAttention(2, dim=4, length=2)
    set_weights(module, query__weight=[[1, 0]] * 4, key__weight=[[0, 1]] * 4)  # 4 log 3 / 2: weights 1 : 9
    read = module(HIDDEN[:, :1], VECTORS, torch.ones(1, 2, dtype=torch.bool))
    assert_values(read, [[[1 / 10, 9 / 10 * LOG_3]]])


@pytest.mark.parametrize("rank", [None, 64])
def test_matrices_start_with_a_standard_deviation_of_one_over_the_root_of_their_inputs(rank):
    fusion: Any = GatedMemoryFusion(256, rank)
    modules = nn.ModuleList([MemoryGate(256, 128, rank), fusion])
    initialize(modules)
    last = fusion.down.up if rank else fusion.down
    for module in modules.modules():
        if isinstance(module, nn.Linear) and module is not last:
            assert module.weight.std().item() == pytest.approx(module.in_features**-0.5, rel=0.05)
            assert module.weight.mean().abs().item() < 0.05 * module.in_features**-0.5 + 1e-3
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("rank", [None, 8])
def test_a_fusion_adds_nothing_before_training(rank):
    fusion: Any = GatedMemoryFusion(16, rank)
    initialize(fusion)
    hidden, memory = torch.randn(2, 3, 16)
    assert torch.equal(fusion(hidden, memory), torch.zeros(3, 16))
    fusion(hidden, memory).sum().backward()
    last = fusion.down.up if rank else fusion.down
    assert last.weight.grad.abs().sum() > 0  # but it can learn to
