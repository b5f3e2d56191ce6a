"""The explicit memory of a backbone: the bank, and the modules that read it after decoder layers.

Shapes: B rows of T positions; hidden size d; C candidates; M selected entries of L tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.memory import MemoryConfig
from pipeline.models.device import autocast
from pipeline.models.memory.bank import PADDING, KnowledgeBank, token_means
from pipeline.models.memory.modules import EntryAttention, GatedMemoryFusion, MemoryGate, MemoryNorm
from pipeline.models.memory.noise import gumbel_noise
from pipeline.models.memory.product_keys import ProductKeys, top_slots
from pipeline.models.memory.router import MemoryRouter

_NEVER = -1e4
"""Similarity of an empty slot: no noise makes it the highest, unless all are empty."""


@dataclass(frozen=True)
class Selection:
    """Entries that one layer found in one forward pass."""

    candidates: Tensor
    """[B, T, C] slots, best first."""
    chosen: Tensor
    """[B, T] slots."""
    similarity: Tensor
    """[B, T] cosine similarity of the hidden states and the chosen entry."""
    diversity: Tensor
    """[B, T] mean cosine similarity between different candidates."""


@dataclass
class Reading:
    """One forward pass: what the layers are given, and what they found."""

    positions: Tensor | None = None
    """[B, T] bool: positions that read the memory. None: all."""
    entries: Tensor | None = None
    """[B, M, L] token ids of the entries that every layer reads. None: each layer looks for its own."""
    seeds: Tensor | None = None
    """[B] int64: of the examples' noise, while training. None: no noise."""
    only_hidden: bool = False
    """Leave the hidden states as they are, and record them."""
    selections: dict[int, Selection] = field(default_factory=dict)
    """By layer; empty if the entries were given."""
    hidden: dict[int, Tensor] = field(default_factory=dict)
    """By layer: [B, T, d], with ``only_hidden``."""


class MemoryLayer(nn.Module):
    """The modules of one decoder layer. With given entries it has neither gate nor keys."""

    def __init__(self, config: MemoryConfig, d: int) -> None:
        super().__init__()
        self.memory_norm = MemoryNorm(d, eps=1e-6)
        if config.query == "token":
            self.memory_gate = MemoryGate(d, config.knowledge_dim, config.gate_rank)
            self.product_keys = ProductKeys(config.side, config.knowledge_dim)
        if config.decode == "attention":
            self.memory_attention = EntryAttention(d, config.fusion_rank or d, config.knowledge_length)
        self.gated_memory_fusion = GatedMemoryFusion(d, config.fusion_rank)


class ExplicitMemory(nn.Module):
    """The memory of a backbone with hidden size ``d``.

    Args:
        layers: decoder layers that read it.
        embedding: the backbone's, shared and not registered here.
    """

    def __init__(self, config: MemoryConfig, d: int, layers: Sequence[int], embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self._embedding = [embedding]  # in a list: it is not a part of the memory
        is_pooled = config.query == "pooled"
        size, dim = (config.knowledge_num, config.knowledge_length, d), config.knowledge_dim
        self.bank = KnowledgeBank(*size, dim, has_embeddings=is_pooled)
        self.router = MemoryRouter(config, d) if is_pooled else None
        self.layers = nn.ModuleDict({str(layer): MemoryLayer(config, d) for layer in layers})
        self._reading: Reading | None = None
        self.metadata: dict[str, str] = {}
        """Of its files: configuration, and digests of backbone and entries."""

    @property
    def embedding(self) -> Tensor:
        """[V, d]"""
        return self._embedding[0].weight

    def refresh(self) -> None:
        """Embed the entries again, in a knowledge space that was just loaded."""
        self.bank.set_entries(self.bank.token_ids[:-1], self.embedding)

    @contextmanager
    def reading(self, reading: Reading | None) -> Iterator[Reading | None]:
        """Within the block, forward passes of the backbone read the memory; with None they do not."""
        before, self._reading = self._reading, reading
        try:
            yield reading
        finally:
            self._reading = before

    def recomputing(self) -> tuple[AbstractContextManager[None], AbstractContextManager[Reading | None]]:
        """Contexts of a checkpointed layer: of its forward pass, and of its recomputation in the backward pass, which
        reads the same although the block ``reading`` has ended."""
        return nullcontext(), self.reading(self._reading)

    def after_layer(self, layer: int, hidden: Tensor) -> Tensor:
        """Hidden states [B, T, d] after a decoder layer to those that the next one gets."""
        reading = self._reading
        if reading is None:
            return hidden
        if reading.only_hidden:
            reading.hidden[layer] = hidden
            return hidden
        dtype = hidden.dtype
        with autocast(hidden.device, dtype):
            added = self._read(layer, hidden, reading).to(dtype)
        if reading.positions is not None:
            added = torch.where(reading.positions[..., None], added, 0)
        return hidden + added

    def _read(self, layer: int, hidden: Tensor, reading: Reading) -> Tensor:
        modules = cast(MemoryLayer, self.layers[str(layer)])
        normed = modules.memory_norm(hidden.float())
        if reading.entries is not None:
            return cast(Tensor, modules.gated_memory_fusion(normed, self._decoded(modules, normed, reading.entries)))
        selection, memory = self._selected(modules, layer, normed, reading.seeds)
        reading.selections[layer] = selection
        return cast(Tensor, modules.gated_memory_fusion(normed, memory)) * selection.similarity.clamp(0, 1)[..., None]

    def _decoded(self, modules: MemoryLayer, normed: Tensor, entries: Tensor) -> Tensor:
        """The given entries [B, M, L] as hidden states [B, T, d] of root mean square 1."""
        token_ids = entries.flatten(1)
        vectors = _unit_rms(self._vectors(token_ids))
        if self.config.decode == "attention":
            return _unit_rms(modules.memory_attention(normed, vectors, token_ids != PADDING))
        mask = (token_ids != PADDING)[..., None]
        mean = (vectors * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return _unit_rms(mean).expand_as(normed)

    def _vectors(self, token_ids: Tensor) -> Tensor:
        return F.embedding(token_ids.clamp(min=0).long(), self.embedding)

    def _selected(
        self, modules: MemoryLayer, layer: int, normed: Tensor, seeds: Tensor | None
    ) -> tuple[Selection, Tensor]:
        """One entry for each position, and its mean token embedding [B, T, d] of root mean square 1."""
        gate = modules.memory_gate
        row_scores, column_scores = modules.product_keys(gate(normed), gate.temperature)
        candidates, _ = top_slots(row_scores.float(), column_scores.float(), self.config.num_candidates)
        with autocast(normed.device, torch.float32):  # no faster in bfloat16, whose casts cost more than the products
            directions = F.normalize(token_means(self.bank.tokens(candidates), self.embedding), dim=-1)
            similarities = (directions @ F.normalize(normed, dim=-1)[..., None])[..., 0]
            is_empty = self.bank.entry_of_slot[candidates] < 0
            weights = self._weights(layer, similarities.masked_fill(is_empty, _NEVER), seeds)
            chosen = candidates.gather(-1, weights.argmax(dim=-1, keepdim=True))[..., 0]
            memory = _unit_rms((weights[..., None, :] @ directions)[..., 0, :])
            similarity = (weights * similarities).sum(dim=-1)
            return Selection(candidates, chosen, similarity, _diversity(directions)), memory

    def _weights(self, layer: int, similarities: Tensor, seeds: Tensor | None) -> Tensor:
        """One-hot over the candidates [B, T, C]: the most similar or, while training, drawn by Gumbel-softmax with the
        gradient of the soft one."""
        if seeds is None:
            return F.one_hot(similarities.argmax(dim=-1), similarities.shape[-1]).float()
        num_positions, num_candidates = similarities.shape[1:]
        noise = gumbel_noise(seeds, layer, (num_positions, num_candidates))
        soft = ((similarities + noise) / self.config.gumbel_temperature).softmax(dim=-1)
        hard = F.one_hot(soft.argmax(dim=-1), num_candidates).to(soft.dtype)
        return hard + soft - soft.detach()


def _unit_rms(vectors: Tensor) -> Tensor:
    return F.rms_norm(vectors.float(), vectors.shape[-1:], eps=1e-6)


def _diversity(directions: Tensor) -> Tensor:
    """Mean cosine similarity between different candidates, given their directions [B, T, C, d]: [B, T]."""
    count = directions.shape[-2]
    squares: Tensor = directions.norm(dim=-1).pow(2).sum(dim=-1)
    return (directions.sum(dim=-2).pow(2).sum(dim=-1) - squares) / max(count * (count - 1), 1)
