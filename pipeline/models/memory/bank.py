"""The bank: knowledge entries in the slots of the product keys, and the space in which queries look for them.

Shapes: N slots = S x S; E entries; L tokens of an entry; backbone embeddings of d dimensions; knowledge space of K.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PADDING = -1
"""Token id of no token."""
_BLOCK = 2**16
"""Entries that are embedded at once."""


@dataclass(frozen=True)
class KnowledgeSpace:
    """Centred, half-whitened principal components of mean token embeddings."""

    mean: Tensor
    """[d]"""
    matrix: Tensor
    """[d, K]"""

    def __call__(self, means: Tensor) -> Tensor:
        """Mean embeddings [..., d] to knowledge embeddings [..., K]."""
        return (means.to(self.mean.dtype) - self.mean) @ self.matrix


class KnowledgeBank(nn.Module):
    """Token ids of the entries by slot. They can be replaced without training: keys and slots stay.

    Args:
        num_slots: N.
        length: L.
    """

    token_ids: Tensor
    """[N, L] int32; PADDING where an entry is shorter, and in empty slots."""
    entry_of_slot: Tensor
    """[N] int64: index of the entry in the file; -1 for an empty slot."""
    embeddings: Tensor
    """[N, K] knowledge embeddings; zero in empty slots."""

    def __init__(self, num_slots: int, length: int, dim: int = 0) -> None:
        super().__init__()
        for name, tensor in (
            ("token_ids", torch.full((num_slots, length), PADDING, dtype=torch.int32)),
            ("entry_of_slot", torch.full((num_slots,), -1)),
            ("embeddings", torch.zeros(num_slots, dim)),
        ):
            self.register_buffer(name, tensor, persistent=False)

    def fill(self, token_ids: Tensor, slot_of_entry: Tensor, embedding: Tensor, space: KnowledgeSpace) -> None:
        """Put entries into their slots.

        Args:
            token_ids: [E, L].
            slot_of_entry: [E], all different.
            embedding: [V, d], the backbone's.
        """
        self.token_ids.fill_(PADDING)
        self.entry_of_slot.fill_(-1)
        self.token_ids[slot_of_entry] = token_ids.to(self.token_ids)
        self.entry_of_slot[slot_of_entry] = torch.arange(len(token_ids), device=slot_of_entry.device)
        self.embeddings.zero_()
        for rows, means in mean_embeddings(token_ids, embedding):
            self.embeddings[slot_of_entry[rows]] = space(means).to(self.embeddings)

    def slot_of_entry(self) -> Tensor:
        """[E]: the slot of each entry."""
        filled = (self.entry_of_slot >= 0).nonzero()[:, 0]
        return filled[self.entry_of_slot[filled].argsort()]


def mean_embeddings(token_ids: Tensor, embedding: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Mean of the token embeddings of each entry in float32, block by block: rows and [rows, d]."""
    for start in range(0, len(token_ids), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield rows, decoded_mean(token_ids[rows].long().to(embedding.device), embedding)


def decoded_mean(token_ids: Tensor, embedding: Tensor) -> Tensor:
    """Mean of the embeddings of [..., L] tokens, without padding: [..., d] float32; 0 for an empty entry."""
    mask = token_ids != PADDING
    vectors = embedding[token_ids.clamp(min=0)].float() * mask[..., None]
    return vectors.sum(dim=-2) / mask.sum(dim=-1, keepdim=True).clamp(min=1)


def knowledge_space(token_ids: Tensor, embedding: Tensor, dim: int) -> KnowledgeSpace:
    """The ``dim`` strongest principal components of all entries, divided by the fourth root of their variances.

    Components alternate between the two halves, so that both sets of product keys can tell entries apart.
    """
    d = embedding.shape[1]
    total, products = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for _, means in mean_embeddings(token_ids, embedding):
        block = means.double().cpu()
        total += block.sum(dim=0)
        products += block.T @ block
    mean = total / len(token_ids)
    variances, vectors = torch.linalg.eigh(products / len(token_ids) - mean.outer(mean))
    strongest = torch.arange(d - 1, d - 1 - dim, -1)
    halves = torch.cat([strongest[0::2], strongest[1::2]])
    floor = variances[-1] * 1e-6
    matrix = vectors[:, halves] / variances[halves].clamp(min=floor) ** 0.25
    return KnowledgeSpace(mean.float(), matrix.float())
