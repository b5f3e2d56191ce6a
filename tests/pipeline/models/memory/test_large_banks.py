"""Measures that keep a bank of a million entries within memory and time, tested at small sizes."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from pipeline.models.memory import attach, bank, router, slots
from pipeline.models.memory.attach import attach_memory
from pipeline.models.memory.bank import PADDING, KnowledgeSpace, mean_embeddings, token_means
from pipeline.models.memory.index import build_index
from pipeline.models.memory.router import MemoryRouter
from pipeline.models.memory.slots import assign_slots
from tests.support.memories import PRESETS, memory_config, random_entries
from tests.support.models import tiny_llama

EMBEDDING = torch.randn(259, 8, generator=torch.Generator().manual_seed(0))


class OnGPU:
    """A tensor that nothing but a move to the CPU can be done with."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def cpu(self) -> Tensor:
        return self._tensor


def test_a_knowledge_space_may_be_on_a_gpu():
    mean, matrix = torch.ones(8), torch.eye(8)[:, :4]
    elsewhere: Any = KnowledgeSpace(OnGPU(mean), OnGPU(matrix))  # type: ignore[arg-type]
    indices = [
        build_index(random_entries(20), EMBEDDING, 5, 4, 0, space)
        for space in (KnowledgeSpace(mean, matrix), elsewhere)
    ]
    for name, tensor in vars(indices[0]).items():
        assert torch.equal(tensor, getattr(indices[1], name)), name


def test_blocks_of_entries_make_the_same_index(monkeypatch):
    whole = build_index(random_entries(20), EMBEDDING, 5, 4, 0)
    monkeypatch.setattr(bank, "_BLOCK", 7)
    assert torch.equal(build_index(random_entries(20), EMBEDDING, 5, 4, 0).slot_of_entry, whole.slot_of_entry)


def test_means_are_those_of_all_tokens():
    entries = random_entries(30)
    vectors, mask = EMBEDDING[entries.clamp(min=0).long()], (entries != PADDING)[..., None]
    expected = (vectors * mask).sum(dim=1) / mask.sum(dim=1)
    ((_, means),) = mean_embeddings(entries, EMBEDDING)
    torch.testing.assert_close(means, expected, rtol=0, atol=1e-6)
    assert token_means(entries.view(5, 6, -1), EMBEDDING).shape == (5, 6, 8)


def test_means_of_bfloat16_are_rounded_once():
    """1 + 1 + 1 = 3 is exact, and 1 is its third; a third is not exact."""
    ones = torch.ones(4, 2, dtype=torch.bfloat16)
    means = token_means(torch.tensor([[0, 1, 2, PADDING]]), ones)
    assert means.dtype == torch.float32 and means.tolist() == [[1.0, 1.0]]


def test_the_embeddings_of_single_tokens_are_never_held(monkeypatch):
    class Embedding(torch.Tensor):
        def __getitem__(self, index: Any) -> Any:
            pytest.fail("held")

    ((_, means),) = mean_embeddings(random_entries(3), EMBEDDING.as_subclass(Embedding))
    assert means.shape == (3, 8)


@pytest.mark.parametrize(("side", "num_matchings"), [(3, 6), (4, 2)])
def test_a_large_grid_is_matched_in_fewer_rounds(monkeypatch, side, num_matchings):
    rows: list[int] = []

    def counted(scores: np.ndarray, **arguments: Any) -> Any:
        rows.append(len(scores))
        return linear_sum_assignment(scores, **arguments)

    monkeypatch.setattr(slots, "LARGE_SIDE", 3)
    monkeypatch.setattr("scipy.optimize.linear_sum_assignment", counted)
    points = np.random.default_rng(0).standard_normal((side**2, 8)).astype(np.float32)
    assign_slots(points, side, seed=0)
    assert len(rows) == num_matchings * side


def test_embeddings_are_normalized_where_they_are():
    points = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    assign_slots(points, 3, seed=0)
    np.testing.assert_allclose(np.linalg.norm(points.reshape(9, 2, 4), axis=-1), 1, rtol=1e-6)


def test_nearest_slots_are_found_in_blocks(monkeypatch):
    found = MemoryRouter(memory_config("routed"), d=64)
    nn.init.normal_(found.product_keys.rows)
    nn.init.normal_(found.product_keys.columns)
    vectors = torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    whole = found.nearest_slots(vectors)
    sizes: list[int] = []
    found.product_keys.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    monkeypatch.setattr(router, "NEAREST_AT_ONCE", 12)
    assert torch.equal(found.nearest_slots(vectors), whole)
    assert sizes == [12, 12, 6]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_backbone_without_weights_gets_a_memory_without_weights(monkeypatch, preset):
    devices: set[str] = set()
    monkeypatch.setattr(attach, "initialize", lambda memory: devices.update(p.device.type for p in memory.parameters()))
    attach_memory(tiny_llama().to("meta"), memory_config(preset), seed=0)
    assert devices == {"meta"}
