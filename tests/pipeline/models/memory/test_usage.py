"""The use of a bank."""

from math import log

import pytest
import torch

from pipeline.models.memory.bank import KnowledgeBank
from pipeline.models.memory.usage import BankUse, bank_use


def bank() -> KnowledgeBank:
    """Four slots; entries 0, 1 and 2 are in slots 3, 0 and 2."""
    made = KnowledgeBank(4, 2, 3, 2, has_embeddings=False)
    made.entry_of_slot.copy_(torch.tensor([1, -1, 2, 0]))
    made.set_entries(torch.zeros(3, 2, dtype=torch.int32), torch.zeros(5, 3))
    return made


def test_choices_are_counted_by_entry_and_empty_slots_are_none():
    use = bank_use([torch.tensor([[3, 3], [0, 1]]), torch.tensor([3])], bank())
    assert use.counts.tolist() == [3, 1, 0]
    assert use.hottest() == [(0, 3), (1, 1)]


def test_coverage_and_entropy():
    metrics = BankUse(torch.tensor([3, 1, 0])).metrics()
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25))
    expected = {"coverage": 2 / 3, "entropy": entropy, "entropy_frac": entropy / log(3), "num_dead": 1}
    assert metrics == pytest.approx(
        {f"bank/{name}": value for name, value in (expected | {"hottest_frac": 0.75}).items()}
    )


def test_equal_use_has_the_highest_entropy_and_no_use_has_none():
    assert BankUse(torch.tensor([5, 5, 5])).metrics()["bank/entropy_frac"] == pytest.approx(1)
    unused = BankUse(torch.zeros(3, dtype=torch.long)).metrics()
    assert (unused["bank/coverage"], unused["bank/entropy"], unused["bank/num_dead"]) == (0, 0, 3)
