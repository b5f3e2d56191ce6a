"""Token sequences to padded micro-batches, and what the policy thinks of them.

Sequences are padded on the right. Attention is causal, so no real token ever sees the padding: neither an
attention mask nor position ids are needed, and the fastest attention kernel applies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class TokenSequence:
    """A prompt and its completion, as the learner sees them."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class MicroBatch:
    """Right-padded sequences. T counts predicted positions: from the earliest completion to the end."""

    rows: tuple[int, ...]
    """Where each sequence stood in the list that was split."""
    input_ids: Tensor
    """[B, L]"""
    first: int
    """Input position whose next token is the first of the T targets."""
    targets: Tensor
    """[B, T] = input_ids[:, first + 1:]"""
    completion_mask: Tensor
    """[B, T] bool: the target is a completion token."""

    def scatter(self, values: Sequence[Sequence[float]]) -> Tensor:
        """Per-token values of the rows' completions, laid out like the targets: [B, T], 0 elsewhere."""
        out = torch.zeros(self.targets.shape)
        flat = torch.tensor([value for row in self.rows for value in values[row]])
        if len(flat) != int(self.completion_mask.sum()):
            raise ValueError(f"{len(flat)} values for {int(self.completion_mask.sum())} completion tokens")
        return out.masked_scatter_(self.completion_mask.cpu(), flat).to(self.targets.device)


def micro_batches(sequences: Sequence[TokenSequence], max_tokens: int, device: torch.device) -> list[MicroBatch]:
    """Split by length so that no micro-batch holds more than ``max_tokens`` padded tokens.

    A single longer sequence gets a micro-batch of its own. The split depends on the lengths alone.
    """
    order = sorted(range(len(sequences)), key=lambda row: (-len(sequences[row]), row))
    batches: list[list[int]] = []
    for row in order:
        longest = len(sequences[batches[-1][0]]) if batches else 0
        if not batches or longest * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(row)
    return [_pad(sequences, rows, device) for rows in batches]


def _pad(sequences: Sequence[TokenSequence], rows: list[int], device: torch.device) -> MicroBatch:
    length = max(len(sequences[row]) for row in rows)
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        sequence = sequences[row]
        input_ids[index, : len(sequence)] = torch.tensor(sequence.prompt + sequence.completion)
        mask[index, len(sequence.prompt) : len(sequence)] = True
    first = min(len(sequences[row].prompt) for row in rows) - 1
    return MicroBatch(
        rows=tuple(rows),
        input_ids=input_ids.to(device),
        first=first,
        targets=input_ids[:, first + 1 :].to(device),
        completion_mask=mask[:, first + 1 :].to(device),
    )


def next_token_logits(model: nn.Module, batch: MicroBatch, dtype: torch.dtype) -> Tensor:
    """Logits [B, T, V] for the batch's targets, computed in ``dtype``; other positions are never projected."""
    keep = torch.arange(batch.first, batch.input_ids.shape[1] - 1, device=batch.input_ids.device)
    device_type = batch.input_ids.device.type
    with torch.autocast(device_type, dtype=dtype, enabled=dtype != torch.float32):
        return model(input_ids=batch.input_ids, logits_to_keep=keep, use_cache=False).logits


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [B, T] of targets [B, T] under softmax(logits [B, T, V] / temperature), in float32."""
    flat = logits.float().flatten(0, 1) / temperature
    return -F.cross_entropy(flat, targets.flatten(), reduction="none").view_as(targets)


@torch.no_grad()
def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy [B, T] of softmax(logits [B, T, V] / temperature), in nats."""
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
