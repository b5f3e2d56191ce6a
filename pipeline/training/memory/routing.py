"""Losses and recall of a router, against the entries that questions are about.

Shapes: B questions; M targets of each, padded; C candidates.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.device import autocast
from pipeline.models.memory.memory import ExplicitMemory, Reading
from pipeline.models.memory.product_keys import slot_log_probs, soft_label_loss, top_slots
from pipeline.models.memory.prompts import PromptStates
from pipeline.training.memory.examples import Target


def target_slots(targets: Sequence[Target], slot_of_entry: Tensor) -> tuple[Tensor, Tensor]:
    """Slots and scores [B, M] of the questions' targets; padding has score 0."""
    width = max(len(target.entries) for target in targets)
    slots = torch.zeros(len(targets), width, dtype=torch.long, device=slot_of_entry.device)
    scores = torch.zeros(len(targets), width, device=slot_of_entry.device)
    for row, target in enumerate(targets):
        count = len(target.entries)
        slots[row, :count] = slot_of_entry[torch.tensor(target.entries, device=slot_of_entry.device)]
        scores[row, :count] = torch.tensor(target.scores)
    return slots, scores


def product_key_loss(row_scores: Tensor, column_scores: Tensor, slots: Tensor, scores: Tensor) -> Tensor:
    """Cross-entropy of the product keys' distribution over all slots, mean over questions."""
    return soft_label_loss(slot_log_probs(row_scores, column_scores, slots), scores)


def recall(candidates: Tensor, slots: Tensor, scores: Tensor, ks: Sequence[int]) -> dict[int, int]:
    """Number of questions whose best target is among the first k candidates.

    Args:
        candidates: [B, C], best first.
    """
    best = slots.gather(1, scores.argmax(dim=1, keepdim=True))
    found = candidates == best
    return {k: int(found[:, :k].any(dim=1).sum()) for k in ks}


@dataclass(frozen=True)
class RouterLosses:
    """Sums over a micro-batch."""

    loss: Tensor
    recalled: dict[int, int]
    """By k: number of questions whose best target is among the first k."""


def pooled_losses(memory: ExplicitMemory, states: PromptStates, slots: Tensor, scores: Tensor) -> RouterLosses:
    """One query for each prompt: cross-entropy of the product keys, and of scaled cosines against all entries.

    Args:
        slots, scores: [B, M] targets.
    """
    router, bank = memory.router, memory.bank
    assert router is not None
    query = router(states.hidden, states.mask)
    row_scores, column_scores = router.scores(query)
    targets = bank.entry_of_slot[slots.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]]
    loss = product_key_loss(row_scores, column_scores, slots, scores)
    loss = loss + entry_loss(query, bank.embeddings[:-1], targets, router.temperature)
    candidates, best = router.find(query.detach(), bank)
    config = memory.config
    recalled = recall(candidates, slots, scores, [config.num_candidates])
    return RouterLosses(loss * len(query), recalled | recall(best, slots, scores, [1, config.num_selected]))


def token_losses(
    model: Any,
    memory: ExplicitMemory,
    prompts: Sequence[Sequence[int]],
    slots: Tensor,
    scores: Tensor,
    dtype: torch.dtype,
) -> RouterLosses:
    """Each layer has a query of its own, of the prompt's last token: the mean over layers."""
    losses, recalled = [], Counter[int]()
    for layer, hidden in last_hidden(model, memory, prompts, dtype).items():
        modules: Any = memory.layers[str(layer)]
        query = modules.memory_gate(modules.memory_norm(hidden.float()))
        row_scores, column_scores = modules.product_keys(query, modules.memory_gate.temperature)
        losses.append(product_key_loss(row_scores, column_scores, slots, scores))
        candidates, _ = top_slots(row_scores.detach(), column_scores.detach(), memory.config.num_candidates)
        recalled.update(recall(candidates, slots, scores, [1, memory.config.num_candidates]))
    mean = {k: round(count / len(losses)) for k, count in recalled.items()}
    return RouterLosses(torch.stack(losses).mean() * len(prompts), mean)


@torch.no_grad()
def last_hidden(
    model: Any, memory: ExplicitMemory, prompts: Sequence[Sequence[int]], dtype: torch.dtype
) -> dict[int, Tensor]:
    """Hidden states [B, d] of each prompt's last token after the layers that read the memory, without it."""
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
        vectors: [E, K] knowledge embeddings.
        targets: [B], the entry of each question.
    """
    cosines = F.normalize(query, dim=-1) @ F.normalize(vectors, dim=-1).T
    return F.cross_entropy(temperature * cosines, targets)
