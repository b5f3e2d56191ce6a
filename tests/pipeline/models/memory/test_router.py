import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipeline.models.memory.product_keys import top_slots
from pipeline.models.memory.router import MemoryRouter
from tests.support.memories import memory_config, random_entries, with_memory
from tests.support.models import tiny_llama


@pytest.fixture(scope="module")
def memory():
    """28 entries in 36 slots."""
    return with_memory(tiny_llama(), memory_config("routed", num_candidates=12, num_selected=3), random_entries(28))


def router_of(memory) -> MemoryRouter:
    assert memory.router is not None
    return memory.router


def test_positions_are_pooled_by_learned_weights():
    """Scores 0 and log 3 make weights 1/4 and 3/4; the masked position has none."""
    router: Any = MemoryRouter(memory_config("routed", knowledge_dim=2, gate_rank=None), d=2)
    normed = torch.tensor([[[1.0, 1.0], [2**0.5, 0.0], [0.0, 2**0.5]]])
    router.pooling.forward = lambda hidden: torch.tensor([[[0.0], [math.log(3)], [50.0]]])
    router.memory_gate.forward = lambda pooled: pooled
    query = router(normed, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(query, torch.tensor([[1 / 4 + 3 / 4 * 2**0.5, 1 / 4]]), rtol=1e-5, atol=1e-5)


def test_padding_does_not_change_a_query(memory):
    hidden = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    queries = router_of(memory)(hidden, mask)
    torch.testing.assert_close(router_of(memory)(hidden[1:, :3], mask[1:, :3]), queries[1:])


@torch.no_grad()
def test_candidates_are_ranked_by_their_cosine_with_the_query(memory):
    router, bank = router_of(memory), memory.bank
    query = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    candidates, best = router.find(query, bank)
    assert torch.equal(candidates, top_slots(*router.scores(query), 12)[0])
    for row in range(4):
        filled = [slot for slot in candidates[row].tolist() if bank.entry_of_slot[slot] >= 0]
        cosines = {slot: F.cosine_similarity(bank.vectors(torch.tensor(slot)), query[row], dim=0) for slot in filled}
        assert best[row].tolist() == sorted(filled, key=lambda slot: -cosines[slot])[:3]
    assert router.find(query, bank, count=5)[1].shape == (4, 5)


def test_an_empty_slot_is_the_last_resort(memory):
    bank = memory.bank
    query = torch.randn(8, 16, generator=torch.Generator().manual_seed(2))
    candidates, best = router_of(memory).find(query, bank, count=12)
    is_empty = bank.entry_of_slot[best] < 0
    assert is_empty.any() and torch.equal(is_empty, is_empty.sort(dim=1).values)
    assert torch.equal(best.sort(dim=1).values, candidates.sort(dim=1).values)


def test_the_query_of_an_entry_finds_it(memory):
    """Its own knowledge embedding is the best query."""
    _, best = router_of(memory).find(memory.bank.embeddings[:-1], memory.bank, count=1)
    found = memory.bank.entry_of_slot[best[:, 0]] == torch.arange(28)
    assert found.float().mean() > 0.9
