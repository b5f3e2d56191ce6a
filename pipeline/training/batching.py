"""Token sequences to micro-batches, padded or packed.

Padded: one sequence per row, padded on the right. Attention is causal, so no real token ever sees the padding: neither
an attention mask nor position ids are needed.

Packed: all sequences of a micro-batch in one row; none sees another. Attention for both: pipeline/models/attention.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

COMPILED_MULTIPLE = 64
"""Packed rows in bfloat16 on a CPU are padded to a multiple of this: PyTorch compiles and keeps a matmul for every
new shape."""


@dataclass(frozen=True)
class TokenSequence:
    """A prompt and its completion as token ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    learned: tuple[bool, ...] | None = None
    """For every token of the completion, whether it is learned. None: all."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def num_learned(self) -> int:
        return len(self.completion) if self.learned is None else sum(self.learned)

    @property
    def learned_mask(self) -> Tensor:
        """[num_completion_tokens] bool"""
        learned = [True] * len(self.completion) if self.learned is None else self.learned
        return torch.tensor(learned, dtype=torch.bool)

    def cut(self, max_length: int) -> "TokenSequence":
        """The sequence up to ``max_length`` tokens, and its whole prompt."""
        room = max(max_length - len(self.prompt), 0)
        return TokenSequence(self.prompt, self.completion[:room], self.learned and self.learned[:room])


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through the model together.

    Shapes: B rows of L tokens; T positions whose next token is predicted. Padded: from the earliest completion to the
    end of the row. Packed: those of completion tokens, padded to the same multiple as the row.
    """

    rows: tuple[int, ...]
    """Index of each sequence in the list that was split."""
    input_ids: Tensor
    """[B, L]; packed: [1, L]"""
    positions: Tensor
    """[T]: the targets are the tokens after these inputs."""
    targets: Tensor
    """[B, T]"""
    completion_mask: Tensor
    """[B, T] bool: the target is a completion token that is learned."""
    owners: Tensor
    """[B, T]: index of the sequence that a target belongs to, in the list that was split."""
    lengths: tuple[int, ...] | None = None
    """Packed: tokens of each sequence in the row, then of the padding, if any. Padded: None."""

    def scatter(self, values: Sequence[Sequence[float]]) -> Tensor:
        """One value per completion token, laid out like the targets: [B, T], 0 elsewhere.

        Args:
            values: for each sequence of the list that was split, one value per token of its completion.

        Raises:
            ValueError: there is not one value per completion token.
        """
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

    Padded: sequences of similar length share a micro-batch. Packed: best fit, longest first. A sequence longer than
    ``max_tokens`` gets a micro-batch of its own. The split depends only on the lengths.
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
    """Share of the tokens in the forward pass that are padding, given ``num_tokens`` real tokens."""
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
        mask[index, len(sequence.prompt) : len(sequence)] = sequence.learned_mask
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
    learned = torch.cat([sequence.learned_mask for sequence in chosen])
    surplus = (0, -len(owners) % multiple)
    places = F.pad(torch.cat(positions), surplus)
    return MicroBatch(
        rows=tuple(rows),
        input_ids=input_ids[None].to(device),
        positions=places.to(device),
        targets=input_ids[places + 1][None].to(device),
        completion_mask=F.pad(learned, surplus)[None].to(device),
        owners=F.pad(owners, surplus, value=rows[0])[None].to(device),
        lengths=(*map(len, chosen), *([padding] if padding else [])),
    )
