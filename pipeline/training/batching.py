"""Turns token sequences into micro-batches: padded, packed, or packed with shared prompts.

Padded: one sequence per row, padded on the right. Attention is causal, so no real token ever sees the padding: neither
an attention mask nor position ids are needed.

Packed: all sequences of a micro-batch are in one row; none sees another. With shared prompts, a prompt is in the row
once, before all of its completions, whose last tokens are left out because they predict nothing. The attention of every
kind is in pipeline/models/attention.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.attention import PackedGroup

COMPILED_MULTIPLE = 64
"""Packed rows in bfloat16 on a CPU are padded to a multiple of this: PyTorch compiles and keeps a matmul for every
new shape."""


@dataclass(frozen=True, init=False)
class TokenSequence:
    """A prompt and its completion as token ids, made from tuples or arrays."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    learned: tuple[bool, ...] | None = None
    """For every token of the completion, whether it is learned. None: all."""

    def __init__(
        self, prompt: Iterable[int], completion: Iterable[int], learned: tuple[bool, ...] | None = None
    ) -> None:
        for name, value in (
            ("prompt", _token_ids(prompt)),
            ("completion", _token_ids(completion)),
            ("learned", learned),
        ):
            object.__setattr__(self, name, value)

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
        """The sequence with its completion cut off at ``max_length`` tokens in total; the prompt stays whole."""
        room = max(max_length - len(self.prompt), 0)
        return TokenSequence(self.prompt, self.completion[:room], self.learned and self.learned[:room])


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through the model together.

    Shapes: B rows of L tokens; T positions whose next token is predicted. Padded: from the start of the earliest
    completion to the end of the row. Packed: the positions that predict completion tokens, padded to the same multiple
    as the row. The last position of a shared prompt comes once for each of its completions.
    """

    rows: tuple[int, ...]
    """Index of each sequence in the list that was split."""
    input_ids: Tensor
    """[B, L]; packed: [1, L]"""
    positions: Tensor
    """[T]: the inputs that the targets are predicted from."""
    targets: Tensor
    """[B, T]"""
    completion_mask: Tensor
    """[B, T] bool: the target is a completion token that is learned."""
    owners: Tensor
    """[B, T]: index of the sequence that a target belongs to, in the list that was split."""
    groups: tuple[PackedGroup, ...] | None = None
    """Packed: what is in the row, in order, the padding included. Padded: None."""

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
    share_prompts: bool = False,
    pad_to_multiple_of: int = 1,
) -> list[MicroBatch]:
    """Split so that no micro-batch holds more than ``max_tokens`` tokens, padding included.

    Padded: sequences of similar length share a micro-batch. Packed: best fit, longest first. A sequence longer than
    ``max_tokens`` gets a micro-batch of its own. With shared prompts, sequences of the same prompt stay together as far
    as they fit. The split depends only on lengths and on which prompts are equal.

    Args:
        share_prompts: compute a prompt once for all its completions. Needs a model that ``can_share_prompts``.
    """
    order = sorted(range(len(sequences)), key=lambda row: (-len(sequences[row]), row))
    lengths = [len(sequence) for sequence in sequences]
    if packing or share_prompts:
        room = max_tokens // pad_to_multiple_of * pad_to_multiple_of
        parts = _by_prompt(sequences, order, room) if share_prompts else [[row] for row in order]
        sizes = [_packed_tokens(sequences, part, share_prompts) for part in parts]
        longest_first = sorted(range(len(parts)), key=lambda part: (-sizes[part], part))
        packs = [[parts[part] for part in pack] for pack in _best_fit(longest_first, sizes, room)]
        return [_pack(sequences, pack, device, pad_to_multiple_of, share_prompts) for pack in packs]
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


def _token_ids(tokens: Iterable[int]) -> tuple[int, ...]:
    return tuple(tokens.tolist() if isinstance(tokens, np.ndarray) else tokens)


def _by_prompt(sequences: Sequence[TokenSequence], order: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Sequences of the same prompt together, in as few parts as best fit needs for ``max_tokens`` each."""
    same: dict[tuple[int, ...], list[int]] = {}
    for row in order:
        same.setdefault(sequences[row].prompt, []).append(row)
    lengths = [len(sequence.completion) - 1 for sequence in sequences]
    return [part for prompt, rows in same.items() for part in _best_fit(rows, lengths, max_tokens - len(prompt))]


def _packed_tokens(sequences: Sequence[TokenSequence], part: Sequence[int], share_prompts: bool) -> int:
    """Tokens of sequences with the same prompt in a packed row."""
    return len(sequences[part[0]].prompt) + sum(len(sequences[row].completion) - share_prompts for row in part)


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


def _pack(
    sequences: Sequence[TokenSequence], parts: list[list[int]], device: torch.device, multiple: int, share_prompts: bool
) -> MicroBatch:
    """One row. ``parts`` are sequences with the same prompt."""
    tokens: list[int] = []
    positions: list[int] = []
    groups: list[PackedGroup] = []
    for part in parts:
        tokens += sequences[part[0]].prompt
        last = len(tokens) - 1  # of the prompt
        for row in part:
            inputs = sequences[row].completion[: -1 if share_prompts else None]
            positions += [last, *range(len(tokens), len(tokens) + len(inputs))][: len(sequences[row].completion)]
            tokens += inputs
        groups.append(_packed_group(sequences, part, share_prompts))
    rows = [row for part in parts for row in part]
    completions = [sequences[row].completion for row in rows]
    owners = torch.tensor(rows).repeat_interleave(torch.tensor([len(completion) for completion in completions]))
    learned = torch.cat([sequences[row].learned_mask for row in rows])
    padding, surplus = -len(tokens) % multiple, (0, -len(positions) % multiple)
    return MicroBatch(
        rows=tuple(rows),
        input_ids=torch.tensor([tokens + [0] * padding]).to(device),
        positions=F.pad(torch.tensor(positions), surplus).to(device),
        targets=F.pad(torch.tensor([token for completion in completions for token in completion]), surplus)[None].to(
            device
        ),
        completion_mask=F.pad(learned, surplus)[None].to(device),
        owners=F.pad(owners, surplus, value=rows[0])[None].to(device),
        groups=(*groups, *([PackedGroup(padding)] if padding else [])),
    )


def _packed_group(sequences: Sequence[TokenSequence], part: Sequence[int], share_prompts: bool) -> PackedGroup:
    if len(part) == 1:
        return PackedGroup(_packed_tokens(sequences, part, share_prompts))
    return PackedGroup(len(sequences[part[0]].prompt), tuple(len(sequences[row].completion) - 1 for row in part))
