"""Token sequences to micro-batches, padded or packed, and what the policy thinks of them.

Padded: one sequence per row, padded on the right. Attention is causal, so no real token ever sees the padding: neither
an attention mask nor position ids are needed.

Packed: all sequences of a micro-batch in one row, none sees another. Attention for both: pipeline/models/attention.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.attention import packing_arguments

COMPILED_MULTIPLE = 64
"""Of packed rows in bfloat16 on a CPU, where PyTorch compiles every new shape of a product and keeps it."""


@dataclass(frozen=True)
class TokenSequence:
    """A prompt and its completion, as the learner sees them."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through the model together. T counts the positions whose next token is predicted: from the
    earliest completion to the end when padded, and those of completion tokens when packed, up to the same multiple as
    the row."""

    rows: tuple[int, ...]
    """Where each sequence stood in the list that was split."""
    input_ids: Tensor
    """[B, L]; packed: [1, L]"""
    positions: Tensor
    """[T], of the inputs whose next tokens are the targets."""
    targets: Tensor
    """[B, T]"""
    completion_mask: Tensor
    """[B, T] bool: the target is a completion token."""
    owners: Tensor
    """[B, T]: the place in the list of the sequence that a target belongs to."""
    lengths: tuple[int, ...] | None = None
    """Packed: tokens of each sequence in the row, and of the padding after them. None: padded."""

    def scatter(self, values: Sequence[Sequence[float]]) -> Tensor:
        """Per-token values of the rows' completions, laid out like the targets: [B, T], 0 elsewhere."""
        out = torch.zeros(self.targets.shape)
        flat = torch.tensor([value for row in self.rows for value in values[row]])
        if len(flat) != int(self.completion_mask.sum()):
            raise ValueError(f"{len(flat)} values for {int(self.completion_mask.sum())} completion tokens")
        return out.masked_scatter_(self.completion_mask.cpu(), flat).to(self.targets.device)


def micro_batches(
    sequences: Sequence[TokenSequence],
    max_tokens: int,
    device: torch.device,
    *,
    packing: bool = False,
    pad_to_multiple_of: int = 1,
) -> list[MicroBatch]:
    """Split so that no micro-batch holds more than ``max_tokens`` tokens, padding included.

    Padded, sequences of similar length share a micro-batch; packed, the longest first go where they leave the least
    room. A single longer sequence gets a micro-batch of its own. The split depends on the lengths alone.
    """
    order = sorted(range(len(sequences)), key=lambda row: (-len(sequences[row]), row))
    lengths = [len(sequence) for sequence in sequences]
    if packing:
        packs = _best_fit(order, lengths, max_tokens // pad_to_multiple_of * pad_to_multiple_of)
        return [_pack(sequences, rows, device, pad_to_multiple_of) for rows in packs]
    batches: list[list[int]] = []
    for row in order:
        longest = _round_up(lengths[batches[-1][0]], pad_to_multiple_of) if batches else 0
        if not batches or longest * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(row)
    return [_pad(sequences, rows, device, pad_to_multiple_of) for rows in batches]


def padding_frac(batches: Sequence[MicroBatch], num_tokens: int) -> float:
    """Share of what goes through the model that is padding, of batches that hold ``num_tokens`` real tokens."""
    return 1 - num_tokens / max(sum(batch.input_ids.numel() for batch in batches), 1)


def _best_fit(order: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    packs: list[list[int]] = []
    room: list[int] = []
    for row in order:
        fitting = [index for index, left in enumerate(room) if left >= lengths[row]]
        if fitting:
            index = min(fitting, key=lambda index: room[index])
        else:
            index = len(packs)
            packs.append([])
            room.append(max_tokens)
        packs[index].append(row)
        room[index] -= lengths[row]
    return packs


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _pad(sequences: Sequence[TokenSequence], rows: list[int], device: torch.device, multiple: int) -> MicroBatch:
    length = _round_up(max(len(sequences[row]) for row in rows), multiple)
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        sequence = sequences[row]
        input_ids[index, : len(sequence)] = torch.tensor(sequence.prompt + sequence.completion)
        mask[index, len(sequence.prompt) : len(sequence)] = True
    positions = torch.arange(min(len(sequences[row].prompt) for row in rows) - 1, length - 1)
    targets = input_ids[:, positions + 1]
    return MicroBatch(
        rows=tuple(rows),
        input_ids=input_ids.to(device),
        positions=positions.to(device),
        targets=targets.to(device),
        completion_mask=mask[:, positions + 1].to(device),
        owners=torch.tensor(rows)[:, None].expand_as(targets).to(device),
    )


def _pack(sequences: Sequence[TokenSequence], rows: list[int], device: torch.device, multiple: int) -> MicroBatch:
    chosen = [sequences[row] for row in rows]
    num_tokens = sum(map(len, chosen))
    padding = _round_up(num_tokens, multiple) - num_tokens
    starts = accumulate([0, *map(len, chosen)])
    positions = [
        torch.arange(start + len(sequence.prompt) - 1, start + len(sequence) - 1)
        for start, sequence in zip(starts, chosen, strict=False)
    ]
    input_ids = torch.tensor([token for s in chosen for token in (*s.prompt, *s.completion)] + [0] * padding)
    owners = torch.tensor(rows).repeat_interleave(torch.tensor([len(p) for p in positions]))
    surplus = (0, -len(owners) % multiple)
    places = F.pad(torch.cat(positions), surplus)
    return MicroBatch(
        rows=tuple(rows),
        input_ids=input_ids[None].to(device),
        positions=places.to(device),
        targets=input_ids[places + 1][None].to(device),
        completion_mask=F.pad(torch.ones_like(owners, dtype=torch.bool), surplus)[None].to(device),
        owners=F.pad(owners, surplus, value=rows[0])[None].to(device),
        lengths=(*map(len, chosen), *([padding] if padding else [])),
    )


def next_token_logits(model: nn.Module, batch: MicroBatch, dtype: torch.dtype) -> Tensor:
    """Logits [B, T, V] for the batch's targets, computed in ``dtype``; other positions are never projected."""
    device_type = batch.input_ids.device.type
    packed = packing_arguments(model, batch.lengths, batch.input_ids.device) if batch.lengths else {}
    with torch.autocast(device_type, dtype=dtype, enabled=dtype != torch.float32):
        return model(input_ids=batch.input_ids, logits_to_keep=batch.positions, use_cache=False, **packed).logits


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [B, T] of targets [B, T] under softmax(logits [B, T, V] / temperature), in float32."""
    return _TokenLogprobs.apply(logits.flatten(0, 1), targets.flatten(), temperature).view_as(targets)


class _TokenLogprobs(torch.autograd.Function):
    """Some rows at a time, so that no float32 copy of all logits ever is in memory; what it keeps for the gradient is
    the logits themselves, and a number per row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """logits [N, V], targets [N] -> [N]"""
        logprobs = torch.empty_like(targets, dtype=torch.float32)
        log_normalizers = torch.empty_like(logprobs)
        for rows in _row_blocks(logits):
            scaled = _scaled(logits[rows], temperature)
            all_logprobs = torch.log_softmax(scaled, dim=-1)
            logprobs[rows] = all_logprobs.gather(1, targets[rows, None])[:, 0]
            log_normalizers[rows] = scaled.amax(dim=-1) - all_logprobs.amax(dim=-1)
        ctx.save_for_backward(logits, targets, log_normalizers)
        ctx.temperature = temperature
        return logprobs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """(1[v = target] - softmax_v) / temperature, times the gradient of the row."""
        logits, targets, log_normalizers = ctx.saved_tensors
        weights = (gradients[0] / ctx.temperature)[:, None]
        result = torch.empty_like(logits)
        for rows in _row_blocks(logits):
            scaled = _scaled(logits[rows], ctx.temperature)
            block = scaled.sub_(log_normalizers[rows, None]).exp_().mul_(-weights[rows])
            result[rows] = block.scatter_add_(1, targets[rows, None], weights[rows])
        return result, None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature in float32, in memory of its own."""
    scaled = logits.to(torch.float32, copy=True)
    return scaled if temperature == 1 else scaled.div_(temperature)


def _row_blocks(logits: Tensor) -> list[slice]:
    """Of as many rows as a CPU's cache holds in float32, or as keep a GPU busy."""
    size = max(1, (2**20 if logits.device.type == "cpu" else 2**26) // logits.shape[1])
    return [slice(start, start + size) for start in range(0, len(logits), size)]


@torch.no_grad()
def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy [B, T] of softmax(logits [B, T, V] / temperature), in nats."""
    flat = logits.flatten(0, 1)
    entropy = torch.empty(len(flat), device=logits.device)
    for rows in _row_blocks(flat):
        logprobs = torch.log_softmax(flat[rows].float() / temperature, dim=-1)
        entropy[rows] = -(logprobs.exp() * logprobs).sum(dim=-1)
    return entropy.view(logits.shape[:-1])
