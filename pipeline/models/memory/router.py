"""The pooled router: one query for each prompt, and the entries that it finds.

Shapes: B prompts of P tokens; hidden size d; queries of K dimensions; M selected entries.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.memory import MemoryConfig
from pipeline.models.memory.bank import KnowledgeBank
from pipeline.models.memory.modules import MemoryGate, MemoryNorm, clamped_temperature
from pipeline.models.memory.product_keys import ProductKeys, top_slots

POOLING_WIDTH = 64
"""Hidden units of the network that scores positions."""
NEAREST_AT_ONCE = 2**14
"""Entries whose scores for all keys are held at once."""


class MemoryRouter(nn.Module):
    """Pools the hidden states of a prompt with learned weights into one query."""

    def __init__(self, config: MemoryConfig, d: int) -> None:
        super().__init__()
        self._config = config
        self.memory_norm = MemoryNorm(d, eps=1e-6)
        self.pooling = nn.Sequential(nn.Linear(d, POOLING_WIDTH), nn.GELU(), nn.Linear(POOLING_WIDTH, 1))
        self.memory_gate = MemoryGate(d, config.knowledge_dim, config.gate_rank)
        self.product_keys = ProductKeys(config.side, config.knowledge_dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(15.0)))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Hidden states [B, P, d] of prompts, with the mask [B, P] of positions to pool, to queries [B, K]."""
        normed = self.memory_norm(hidden.float())
        scores = self.pooling(normed)[..., 0].masked_fill(~mask, float("-inf"))
        pooled = (scores.softmax(dim=-1)[..., None] * normed).sum(dim=1)
        return cast(Tensor, self.memory_gate(pooled))

    @property
    def temperature(self) -> Tensor:
        """Multiplies cosines with knowledge embeddings, within limits."""
        return clamped_temperature(self.log_temperature)

    def scores(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B, S] of rows and columns of the product keys."""
        return cast(tuple[Tensor, Tensor], self.product_keys(query, self.memory_gate.temperature))

    def nearest_slots(self, vectors: Tensor) -> Tensor:
        """The slot [E] whose keys are most similar to each of the knowledge embeddings [E, K], taken or not."""
        one = torch.ones((), device=vectors.device)
        slots = []
        for block in vectors.split(NEAREST_AT_ONCE):
            rows, columns = (scores.argmax(dim=-1) for scores in self.product_keys(block, one))
            slots.append(rows * self._config.side + columns)
        return torch.cat(slots)

    def find(self, query: Tensor, bank: KnowledgeBank, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Candidates [B, C] in the order of the product keys, and the best of them by cosine similarity with the query
        in the knowledge space, best first: [B, count], by default M."""
        candidates, _ = top_slots(*self.scores(query), self._config.num_candidates)
        similarities = (bank.vectors(candidates) @ F.normalize(query, dim=-1)[..., None])[..., 0]
        is_empty = bank.entry_of_slot[candidates] < 0
        best = similarities.masked_fill(is_empty, -2.0).topk(count or self._config.num_selected, dim=-1).indices
        return candidates, candidates.gather(-1, best)
