import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.models.memory.attach import set_trainable
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.memory.prompts import read_prompts
from pipeline.training.memory.examples import Target
from pipeline.training.memory.routing import (
    entry_loss,
    kept_positions,
    last_hidden,
    pooled_losses,
    product_key_loss,
    recall,
    target_entries,
    token_losses,
)
from tests.support.memories import layer_of, memory_config, random_entries, set_random_weights, with_memory
from tests.support.models import tiny_llama

PROMPTS = [(5, 17, 200, 31, 8), (3, 9, 9), (40, 41, 42, 43)]
TARGETS = [Target((4,), (1.0,)), Target((7, 2), (1.0, 3.0)), Target((0,), (2.0,))]


def test_targets_are_padded_with_scores_of_zero():
    entries, scores = target_entries(TARGETS[:2], torch.device("cpu"))
    assert entries.tolist() == [[4, 0], [7, 2]]
    assert scores.tolist() == [[1.0, 0.0], [1.0, 3.0]]


def test_the_loss_of_the_product_keys():
    """Softmax over rows: 3/4 and 1/4; over columns: 1/2 each. Slot 0 has 3/8, slot 2 has 1/8."""
    rows, columns = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    one = product_key_loss(rows, columns, torch.tensor([[0, 0]]), torch.tensor([[5.0, 0.0]]))
    assert one.item() == pytest.approx(math.log(8 / 3))
    two = product_key_loss(rows, columns, torch.tensor([[0, 2]]), torch.tensor([[1.0, 1.0]]))
    assert two.item() == pytest.approx((math.log(8 / 3) + math.log(8)) / 2)


def test_the_loss_over_entries_is_of_scaled_cosines():
    """Cosines 0.6 and 0.8, times 10."""
    loss = entry_loss(torch.tensor([[3.0, 4.0]]), torch.eye(2), torch.tensor([0]), torch.tensor(10.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_recall_counts_questions_whose_best_target_is_among_the_first():
    candidates = torch.tensor([[4, 5, 6], [4, 5, 6], [4, 5, 6]])
    slots, scores = torch.tensor([[4, 9], [6, 4], [8, 0]]), torch.tensor([[2.0, 1.0], [3.0, 1.0], [1.0, 0.0]])
    assert recall(candidates, slots, scores, [1, 2, 3]) == {1: 1, 2: 1, 3: 2}


def pooled() -> Any:
    model = tiny_llama()
    memory = with_memory(model, memory_config("routed", num_selected=2), random_entries(30))
    set_trainable(memory, ["memory_gate", "memory_norm"], router=True)
    return model, memory


def targets_of(memory: ExplicitMemory) -> tuple[Tensor, Tensor, Tensor]:
    """Entries and scores of the targets, and the nearest slots of all entries."""
    assert memory.router is not None
    return *target_entries(TARGETS, torch.device("cpu")), memory.router.nearest_slots(memory.bank.embeddings[:-1])


def test_the_pooled_losses_are_those_of_each_question_summed():
    model, memory = pooled()
    entries, scores, nearest = targets_of(memory)
    states = read_prompts(model, PROMPTS, with_kv=False)
    whole, parts = pooled_losses(memory, states, states.mask, entries, scores, nearest), []
    for row, prompt in enumerate(PROMPTS):
        states, own = read_prompts(model, [prompt], with_kv=False), slice(row, row + 1)
        part = pooled_losses(memory, states, states.mask, entries[own], scores[own], nearest)
        parts.append(part.loss.item())
        query = memory.router(states.hidden, states.mask)
        joint = (lambda r, c: (r[:, :, None] + c[:, None, :]).flatten(1).log_softmax(1))(*memory.router.scores(query))
        target = TARGETS[row]
        of_keys = -sum(
            score / sum(target.scores) * joint[0, nearest[entry]]
            for entry, score in zip(target.entries, target.scores, strict=True)
        )
        best = target.entries[target.scores.index(max(target.scores))]
        cosines = torch.cosine_similarity(query, memory.bank.embeddings[:-1], dim=1)
        of_entries = -(cosines * memory.router.temperature).log_softmax(0)[best]
        assert parts[-1] == pytest.approx((of_keys + of_entries).item(), rel=1e-4)
    assert whole.loss.item() == pytest.approx(sum(parts), rel=1e-4)
    assert set(whole.recalled) == {1, 2, 8}


def test_a_router_learns_to_find_the_entries():
    model, memory = pooled()
    states = read_prompts(model, PROMPTS, with_kv=False)
    entries, scores, nearest = targets_of(memory)
    optimizer = torch.optim.AdamW([p for p in memory.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        pooled_losses(memory, states, states.mask, entries, scores, nearest).loss.backward()
        optimizer.step()
    assert pooled_losses(memory, states, states.mask, entries, scores, nearest).recalled[1] == 3


def test_dropped_tokens_follow_from_the_example_alone():
    mask, seeds = torch.arange(12) < torch.tensor([[12], [7], [1]]), torch.tensor([5, 6, 7])
    kept = kept_positions(mask, seeds, 0.5)
    assert torch.equal(kept, kept & mask) and kept.any(dim=1).all()
    assert 0 < kept[0].sum() < 12
    assert torch.equal(kept_positions(mask[1:2, :8], seeds[1:2], 0.5), kept[1:2, :8])
    assert torch.equal(kept_positions(mask, seeds, 0.0), mask)
    assert kept_positions(mask, seeds, 1.0).nonzero().tolist() == [[0, 0], [1, 0], [2, 0]]


def test_hidden_states_of_the_last_tokens_are_those_without_the_memory():
    model = tiny_llama().eval()
    memory = with_memory(model, memory_config())
    set_random_weights(memory.layers)
    found = last_hidden(model, memory, PROMPTS, torch.float32)
    assert list(found) == [0, 1]
    for row, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            hidden = model.model(input_ids=torch.tensor([prompt]), output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(found[0][row], hidden[0, -1], rtol=1e-4, atol=1e-4)


def test_each_layer_has_a_query_and_its_loss_and_recall_are_means():
    model = tiny_llama()
    memory = with_memory(model, memory_config())
    set_trainable(memory, ["memory_gate", "memory_norm"], router=False)
    entries, scores = target_entries(TARGETS, torch.device("cpu"))
    slots = memory.bank.slot_of_entry()[entries]
    whole = token_losses(model, memory, PROMPTS, slots, scores, torch.float32)
    singles = [
        token_losses(model, memory, [prompt], slots[row : row + 1], scores[row : row + 1], torch.float32)
        for row, prompt in enumerate(PROMPTS)
    ]
    assert whole.loss.item() == pytest.approx(sum(single.loss.item() for single in singles), rel=1e-4)
    for k in (1, 8):
        assert whole.recalled[k] == pytest.approx(sum(single.recalled[k] for single in singles))
    whole.loss.backward()
    for number in (0, 1):
        layer = layer_of(memory, number)
        assert layer.memory_gate.query[0].up.weight.grad.any() and layer.product_keys.rows.grad is None


def test_recall_is_not_rounded_in_a_micro_batch(monkeypatch):
    """Found in one of two layers: half a question, however the batch is split."""
    model = tiny_llama()
    memory = with_memory(model, memory_config())
    found = iter([{1: 1, 8: 1}, {1: 0, 8: 1}])
    monkeypatch.setattr("pipeline.training.memory.routing.recall", lambda *_: next(found))
    entries, scores = target_entries(TARGETS[:1], torch.device("cpu"))
    slots = memory.bank.slot_of_entry()[entries]
    assert token_losses(model, memory, PROMPTS[:1], slots, scores, torch.float32).recalled == {1: 0.5, 8: 1.0}
