"""Losses and recall of a router, against the entries that questions are about.

Shapes: B questions; M targets of each, padded; C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.device import autocast
from pipeline.models.memory.memory import ExplicitMemory, Reading
from pipeline.models.memory.noise import uniform_noise
from pipeline.models.memory.product_keys import slot_log_probs, soft_label_loss, top_slots
from pipeline.models.memory.prompts import PromptStates
from pipeline.training.memory.examples import Target


def target_entries(targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor]:
    """Entries and scores [B, M] of the questions' targets; padding has score 0."""
    width = max(len(target.entries) for target in targets)
    entries = torch.zeros(len(targets), width, dtype=torch.long)
    scores = torch.zeros(len(targets), width)
    for row, target in enumerate(targets):
        count = len(target.entries)
        entries[row, :count], scores[row, :count] = torch.tensor(target.entries), torch.tensor(target.scores)
    return entries.to(device), scores.to(device)


def product_key_loss(row_scores: Tensor, column_scores: Tensor, slots: Tensor, scores: Tensor) -> Tensor:
    """Cross-entropy of the product keys' distribution over all slots, mean over questions."""
    return soft_label_loss(slot_log_probs(row_scores, column_scores, slots), scores)


def recall(candidates: Tensor, targets: Tensor, scores: Tensor, ks: Sequence[int]) -> dict[int, float]:
    """Number of questions whose best target is among the first k candidates.

    Args:
        candidates: [B, C] entries or slots, best first.
        targets: [B, M], likewise.
    """
    best = targets.gather(1, scores.argmax(dim=1, keepdim=True))
    found = candidates == best
    return {k: int(found[:, :k].any(dim=1).sum()) for k in ks}


@dataclass(frozen=True)
class RouterLosses:
    """Sums over a micro-batch."""

    loss: Tensor
    recalled: dict[int, float]
    """By k: number of questions whose best target is among the first k, mean over queries."""


def kept_positions(mask: Tensor, seeds: Tensor, dropout: float) -> Tensor:
    """The mask [B, P] of prompts with a share of their tokens dropped, so that the router relies on no single word. A
    prompt that would lose all tokens keeps its first.

    Args:
        seeds: [B], of the examples.
    """
    kept = mask & (uniform_noise(seeds, 0, (mask.shape[1],)) >= dropout)
    kept[:, 0] |= ~kept.any(dim=1)
    return kept


def pooled_losses(
    memory: ExplicitMemory, states: PromptStates, kept: Tensor, entries: Tensor, scores: Tensor, nearest: Tensor
) -> RouterLosses:
    """One query for each prompt: cross-entropy of the product keys, and of scaled cosines against all entries.

    Args:
        kept: [B, P] bool, positions that are pooled.
        entries, scores: [B, M] targets.
        nearest: [E], the slot whose keys are nearest to each entry. An entry's own slot may be elsewhere, because
            every slot has one entry; as a target it could only be memorized.
    """
    router, bank = memory.router, memory.bank
    assert router is not None
    query = router(states.hidden, kept)
    row_scores, column_scores = router.scores(query)
    targets = entries.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
    loss = product_key_loss(row_scores, column_scores, nearest[entries], scores)
    loss = loss + entry_loss(query, bank.embeddings[:-1], targets, router.temperature)
    with torch.no_grad():
        candidates, best = router.find(query, bank)
    config = memory.config
    found, chosen = bank.entry_of_slot[candidates], bank.entry_of_slot[best]
    recalled = recall(found, entries, scores, [config.num_candidates])
    return RouterLosses(loss * len(query), recalled | recall(chosen, entries, scores, [1, config.num_selected]))


def token_losses(
    model: Any,
    memory: ExplicitMemory,
    prompts: Sequence[Sequence[int]],
    slots: Tensor,
    scores: Tensor,
    dtype: torch.dtype,
) -> RouterLosses:
    """Each layer has a query of its own, from the prompt's last token. Losses and recall are means over the layers.

    Args:
        slots, scores: [B, M] targets.
    """
    losses, recalled = [], []
    for layer, hidden in last_hidden(model, memory, prompts, dtype).items():
        modules: Any = memory.layers[str(layer)]
        query = modules.memory_gate(modules.memory_norm(hidden.float()))
        row_scores, column_scores = modules.product_keys(query, modules.memory_gate.temperature)
        losses.append(product_key_loss(row_scores, column_scores, slots, scores))
        candidates, _ = top_slots(row_scores.detach(), column_scores.detach(), memory.config.num_candidates)
        recalled.append(recall(candidates, slots, scores, [1, memory.config.num_candidates]))
    mean = {k: fmean(counts[k] for counts in recalled) for k in recalled[0]}
    return RouterLosses(torch.stack(losses).mean() * len(prompts), mean)


@torch.no_grad()
def last_hidden(
    model: Any, memory: ExplicitMemory, prompts: Sequence[Sequence[int]], dtype: torch.dtype
) -> dict[int, Tensor]:
    """Hidden states [B, d] of each prompt's last token, by layer that reads the memory; here the memory is not read."""
    device = memory.embedding.device
    tokens = [torch.tensor(prompt) for prompt in prompts]
    input_ids = nn.utils.rnn.pad_sequence(tokens, batch_first=True).to(device)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    reading = Reading(only_hidden=True)
    with memory.reading(reading), autocast(device, dtype):
        model.get_decoder()(input_ids=input_ids, use_cache=False)
    return {layer: hidden[torch.arange(len(last)), last] for layer, hidden in reading.hidden.items()}


def entry_loss(query: Tensor, vectors: Tensor, targets: Tensor, temperature: Tensor) -> Tensor:
    """Cross-entropy of scaled cosines against all entries, mean over questions.

    Args:
        query: [B, K].
        vectors: [E, K] knowledge embeddings, of length 1.
        targets: [B], the entry of each question.
    """
    cosines = F.normalize(query, dim=-1) @ vectors.T
    return F.cross_entropy(temperature * cosines, targets)
