import pytest
import torch

from pipeline.models.memory.bank import PADDING, KnowledgeBank, KnowledgeSpace, knowledge_space, mean_embeddings
from tests.support.memories import random_entries

EMBEDDING = torch.tensor([[2.0, 0.0], [0.0, 4.0], [6.0, 2.0]])


def test_an_entry_is_the_mean_of_its_tokens_without_padding():
    entries = torch.tensor([[0, 1, 2], [1, 2, PADDING], [2, PADDING, PADDING], [PADDING, PADDING, PADDING]])
    ((rows, means),) = mean_embeddings(entries, EMBEDDING)
    assert rows.start == 0
    torch.testing.assert_close(means, torch.tensor([[8 / 3, 2.0], [3.0, 3.0], [6.0, 2.0], [0.0, 0.0]]))


def filled_bank() -> KnowledgeBank:
    """Entries 0 to 2 in slots 3, 0 and 2 of four. Its space subtracts (1, 1) and swaps the dimensions."""
    bank = KnowledgeBank(4, 2, 2, 2, has_embeddings=True)
    bank.entry_of_slot.copy_(torch.tensor([1, -1, 2, 0]))
    bank.space_mean.copy_(torch.tensor([1.0, 1.0]))
    bank.space_matrix.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    bank.set_entries(torch.tensor([[0, PADDING], [1, 2], [2, PADDING]]), EMBEDDING)
    return bank


def test_slots_give_the_tokens_and_the_knowledge_embeddings_of_their_entries():
    bank = filled_bank()
    slots = torch.tensor([[0, 1], [2, 3]])
    empty = [PADDING, PADDING]
    assert bank.tokens(slots).tolist() == [[[1, 2], empty], [[2, PADDING], [0, PADDING]]]
    expected = torch.tensor([[[2.0, 2.0], [0.0, 0.0]], [[1.0, 5.0], [-1.0, 1.0]]])
    torch.testing.assert_close(bank.vectors(slots), torch.nn.functional.normalize(expected, dim=-1))
    assert bank.num_entries == 3
    assert bank.slot_of_entry().tolist() == [3, 0, 2]


def test_entries_are_replaced_where_they_are():
    bank = filled_bank()
    bank.set_entries(torch.tensor([[1, PADDING], [0, PADDING], [2, 1]]), EMBEDDING)
    assert bank.tokens(torch.tensor([3, 1])).tolist() == [[1, PADDING], [PADDING, PADDING]]
    expected = torch.tensor([[3 / 10**0.5, -1 / 10**0.5], [0.0, 0.0]])
    torch.testing.assert_close(bank.vectors(torch.tensor([3, 1])), expected)
    assert bank.slot_of_entry().tolist() == [3, 0, 2]


def test_a_bank_may_keep_no_embeddings():
    bank = KnowledgeBank(4, 2, 2, 2, has_embeddings=False)
    bank.set_entries(torch.tensor([[0, 1]]), EMBEDDING)
    assert bank.embeddings.shape == (0, 2)
    assert set(bank.state_dict()) == {"entry_of_slot", "space_mean", "space_matrix"}


def scaled_axes(*variances: float) -> torch.Tensor:
    """Two points on each axis around (5, 5, ...), whose variances over all points are these."""
    d = len(variances)
    offsets = torch.diag(torch.tensor(variances).mul(d).sqrt())
    return 5 + torch.cat([offsets, -offsets])


def space_of(points: torch.Tensor, dim: int) -> KnowledgeSpace:
    return knowledge_space(torch.arange(len(points))[:, None], points, dim)


def test_the_space_is_centred_and_half_whitened():
    """Variances 16 and 1 become 4 and 1: each is divided by its root."""
    points = scaled_axes(16.0, 1.0)
    space = space_of(points, 2)
    torch.testing.assert_close(space.mean, torch.tensor([5.0, 5.0]))
    torch.testing.assert_close(space.matrix.abs(), torch.diag(torch.tensor([0.5, 1.0])))
    found = space(points)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.var(dim=0, correction=0), torch.tensor([4.0, 1.0]))


def test_components_alternate_between_the_halves_and_the_weakest_are_left_out():
    variances = space_of(points := scaled_axes(1.0, 81.0, 16.0, 0.01, 256.0), 4)(points).var(dim=0, correction=0)
    torch.testing.assert_close(variances, torch.tensor([16.0, 4.0, 9.0, 1.0]))


def test_components_without_variance_stay_finite():
    points = scaled_axes(1.0, 4.0, 0.0, 0.0)
    assert space_of(points, 4)(points).isfinite().all()


@pytest.mark.parametrize("count", [1, 5])
def test_entries_that_are_all_the_same_have_finite_embeddings(count):
    entries = random_entries(1).repeat(count, 1)
    embedding = torch.randn(259, 8, generator=torch.Generator().manual_seed(0))
    space = knowledge_space(entries, embedding, 4)
    for _, means in mean_embeddings(entries, embedding):
        assert space(means).isfinite().all() and space(means + 1).isfinite().all()
