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
        return (means - self.mean) @ self.matrix


class KnowledgeBank(nn.Module):
    """Token ids of the entries, and the slots that the entries are in. Entries can be replaced without training.

    Args:
        num_slots: N.
        length: L.
        d: hidden size of the backbone.
        dim: K.
        has_embeddings: keep the knowledge embeddings of all entries.
    """

    entry_of_slot: Tensor
    """[N] int64: index of the entry; -1 for an empty slot."""
    space_mean: Tensor
    space_matrix: Tensor
    token_ids: Tensor
    """[E + 1, L] int32: PADDING where an entry is shorter, and in the last row, which is that of empty slots."""
    embeddings: Tensor
    """[E + 1, K] knowledge embeddings, of length 1, if they are kept; else [0, K]."""

    def __init__(self, num_slots: int, length: int, d: int, dim: int, *, has_embeddings: bool) -> None:
        super().__init__()
        self._has_embeddings = has_embeddings
        self.register_buffer("entry_of_slot", torch.full((num_slots,), -1))
        self.register_buffer("space_mean", torch.zeros(d))
        self.register_buffer("space_matrix", torch.zeros(d, dim))
        self.register_buffer("token_ids", torch.full((1, length), PADDING, dtype=torch.int32), persistent=False)
        self.register_buffer("embeddings", torch.zeros(0, dim), persistent=False)

    @property
    def space(self) -> KnowledgeSpace:
        return KnowledgeSpace(self.space_mean, self.space_matrix)

    @property
    def num_entries(self) -> int:
        return len(self.token_ids) - 1

    def set_entries(self, token_ids: Tensor, embedding: Tensor) -> None:
        """Replace the texts of all entries, as many as before or, before ``entry_of_slot`` is set, any number.

        Args:
            token_ids: [E, L].
            embedding: [V, d], the backbone's.
        """
        self.token_ids = nn.functional.pad(token_ids.to(self.token_ids), (0, 0, 0, 1), value=PADDING)
        if self._has_embeddings:
            blocks = [self.space(means.to(self.space_mean)) for _, means in mean_embeddings(token_ids, embedding)]
            directions = nn.functional.normalize(torch.cat(blocks), dim=-1)
            self.embeddings = nn.functional.pad(directions, (0, 0, 0, 1))

    def tokens(self, slots: Tensor) -> Tensor:
        """Token ids [..., L] of the entries in slots [...]."""
        return self.token_ids[self.entry_of_slot[slots]]

    def vectors(self, slots: Tensor) -> Tensor:
        """Knowledge embeddings [..., K] of the entries in slots [...]; 0 for an empty slot."""
        return self.embeddings[self.entry_of_slot[slots]]

    def slot_of_entry(self) -> Tensor:
        """[E]: the slot of each entry."""
        filled = (self.entry_of_slot >= 0).nonzero()[:, 0]
        return filled[self.entry_of_slot[filled].argsort()]


def mean_embeddings(token_ids: Tensor, embedding: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Mean of the token embeddings of each entry in float32, block by block: rows and [rows, d]."""
    for start in range(0, len(token_ids), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield rows, token_means(token_ids[rows].to(embedding.device), embedding)


@torch.no_grad()
def token_means(token_ids: Tensor, embedding: Tensor) -> Tensor:
    """Mean of the embeddings of [..., L] tokens, without padding: [..., d] float32; 0 for an empty entry.

    The embeddings of single tokens are never held. Of a bfloat16 embedding, the sum is rounded to bfloat16 once and
    divided in float32.
    """
    tokens = token_ids.reshape(-1, token_ids.shape[-1]).long()
    mask = tokens != PADDING
    weights = mask.to(embedding.dtype)
    sums = nn.functional.embedding_bag(tokens.clamp(min=0), embedding, mode="sum", per_sample_weights=weights)
    means = sums.float() / mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return means.view(*token_ids.shape[:-1], -1)


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
    floor = variances[-1].clamp(min=1e-6) * 1e-6  # above 0 for entries that are all the same
    matrix = vectors[:, halves] / variances[halves].clamp(min=floor) ** 0.25
    return KnowledgeSpace(mean.float(), matrix.float())
