"""Losses of a memory's fusion, per token and per position.

Shapes: B rows; T predicted positions; L positions of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.device import autocast
from pipeline.models.memory.attach import memory_of
from pipeline.models.memory.bank import PADDING
from pipeline.models.memory.memory import Reading
from pipeline.models.memory.prompts import PromptStates, answer_output, rounded_up
from pipeline.training.batching import MicroBatch
from pipeline.training.logprobs import token_logprobs
from pipeline.training.sft import token_losses

ANSWER_MULTIPLE = 8
"""Answers are padded to a multiple of this: PyTorch compiles a matmul for every new shape in bfloat16 on a CPU."""


@dataclass(frozen=True)
class FusionLosses:
    """Sums over a micro-batch. Each is divided by a count over the whole batch."""

    loss: Tensor
    """Cross-entropy, over the tokens to learn."""
    num_hits: Tensor
    """Number of these tokens that the model finds the likeliest."""
    similarity: Tensor
    """Cosine similarity of the selected entries: over positions, mean over layers."""
    diversity: Tensor
    """Similarity between different candidates, likewise."""


def token_form_losses(
    model: nn.Module, batch: MicroBatch, lengths: Sequence[int], seeds: Sequence[int], dtype: torch.dtype
) -> FusionLosses:
    """Every position of every layer looks for an entry of its own.

    Args:
        lengths: tokens of each row without padding.
        seeds: of each row's noise.
    """
    device = batch.input_ids.device
    memory = memory_of(model)
    assert memory is not None
    real = torch.arange(batch.input_ids.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
    reading = Reading(seeds=torch.tensor(seeds, device=device))
    with memory.reading(reading):
        losses, hits = token_losses(model, batch, dtype)
    found = list(reading.selections.values())
    similarity = torch.stack([(item.similarity * real).sum() for item in found]).mean()
    diversity = torch.stack([(item.diversity * real).sum() for item in found]).mean()
    return FusionLosses(losses.sum(), hits.sum(), similarity, diversity)


def given_form_losses(
    model: nn.Module,
    states: PromptStates,
    last_tokens: Sequence[int],
    completions: Sequence[Sequence[int]],
    entries: Tensor,
    dtype: torch.dtype,
) -> FusionLosses:
    """All layers read the given entries from the prompt's last token on.

    Args:
        last_tokens: of the prompts, [B].
        completions: [B] token ids.
        entries: [B, M, L] token ids.
    """
    memory = memory_of(model)
    assert memory is not None
    device = entries.device
    width = rounded_up(max(map(len, completions)), ANSWER_MULTIPLE)
    rows = [F.pad(torch.tensor(tokens), (0, width - len(tokens)), value=PADDING) for tokens in completions]
    targets = torch.stack(rows).to(device)
    mask = targets != PADDING
    inputs = torch.cat([torch.tensor(last_tokens, device=device)[:, None], targets[:, :-1].clamp(min=0)], dim=1)
    with memory.reading(Reading(entries=entries)), autocast(device, dtype):
        logits = answer_output(model, states, inputs).logits
    losses = -token_logprobs(logits, targets.clamp(min=0)) * mask
    hits = (logits.detach().max(dim=-1).indices == targets) & mask
    nothing = torch.zeros((), device=device)
    return FusionLosses(losses.sum(), hits.sum(), nothing, nothing)


def pad_entries(entries: Sequence[Sequence[int]], length: int) -> Tensor:
    """Token ids [B, L] of entries that may be shorter, int32."""
    rows = [torch.tensor(entry, dtype=torch.int32) for entry in entries]
    return torch.stack([F.pad(row, (0, length - len(row)), value=PADDING) for row in rows])
