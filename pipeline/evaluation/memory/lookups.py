"""Which entries were found and read for a question, as fields of its row.

``chosen`` and ``candidates`` are indices of entries, -1 for an empty slot; ``read`` are the texts that were chosen, as
they are in the bank. ``right_place`` is the place of the right entry among the candidates, from 1, or None.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.models.memory.bank import PADDING, KnowledgeBank
from pipeline.models.memory.generation import Route, read_selections
from pipeline.models.memory.memory import Selection
from pipeline.models.tokenizer import Tokenizer

Fields = dict[str, Any]
MAX_CANDIDATES = 32
"""Candidates that a row holds."""


@dataclass(frozen=True)
class Lookups:
    """Entries looked up for a batch of questions."""

    rows: list[Fields]
    slots: list[Tensor]
    """All that were chosen, once for each time."""


def no_lookups(count: int) -> Lookups:
    return Lookups([{} for _ in range(count)], [])


def routed_lookups(route: Route, right: Sequence[int], bank: KnowledgeBank, tokenizer: Tokenizer) -> Lookups:
    """The entries that a router found. Candidates are in the order of the product keys, with their similarities.

    Args:
        right: the entries that the questions are about.
    """
    columns = zip(
        right,
        bank.entry_of_slot[route.candidates].tolist(),
        route.similarities.tolist(),
        bank.entry_of_slot[route.chosen].tolist(),
        bank.tokens(route.chosen).tolist(),
        strict=True,
    )
    rows = [
        {
            "candidates": candidates[:MAX_CANDIDATES],
            "similarities": [round(value, 3) for value in similarities[:MAX_CANDIDATES]],
            "right_place": candidates.index(entry) + 1 if entry in candidates else None,
            "chosen": chosen,
            "read": [entry_text(tokenizer, token_ids) for token_ids in read],
        }
        for entry, candidates, similarities, chosen, read in columns
    ]
    return Lookups(rows, [route.chosen])


def layer_lookups(
    model: Any,
    prompts: Sequence[Sequence[int]],
    written: Sequence[Sequence[int]],
    right: Sequence[int],
    bank: KnowledgeBank,
    tokenizer: Tokenizer,
    num_detailed: int,
) -> Lookups:
    """The entries that each layer found at the positions from which the answers were written.

    Args:
        num_detailed: rows, from the first, that tell layers and positions apart.
    """
    sequences = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, written, strict=True)]
    selections, mask = read_selections(model, sequences)
    rows = []
    for index, (prompt, sequence, entry) in enumerate(zip(prompts, sequences, right, strict=True)):
        places = range(len(prompt) - 1, len(sequence))
        row = _of_all_layers(selections, index, places, bank, tokenizer) | {
            "right_place": _best_place(selections, index, places, bank, entry)
        }
        if index < num_detailed:
            tokens = [tokenizer.decode([sequence[place]]) for place in places]
            row["layers"] = {str(layer): _of_layer(s, index, places, tokens, bank) for layer, s in selections.items()}
        rows.append(row)
    return Lookups(rows, [selection.chosen[mask] for selection in selections.values()])


def _of_all_layers(
    selections: dict[int, Selection], row: int, places: range, bank: KnowledgeBank, tokenizer: Tokenizer
) -> Fields:
    """Entries by the number of times that they were chosen."""
    slots = torch.cat([selection.chosen[row, list(places)] for selection in selections.values()])
    often = [slot for slot, _ in Counter(slots.tolist()).most_common()]
    read = [entry_text(tokenizer, token_ids) for token_ids in bank.tokens(torch.tensor(often)).tolist()]
    return {"chosen": bank.entry_of_slot[often].tolist(), "read": read}


def _best_place(
    selections: dict[int, Selection], row: int, places: range, bank: KnowledgeBank, entry: int
) -> int | None:
    """The best place of an entry among the candidates of any layer and position."""
    candidates = torch.cat([selection.candidates[row, list(places)] for selection in selections.values()])
    found = (bank.entry_of_slot[candidates] == entry).nonzero()[:, 1]
    return int(found.min()) + 1 if len(found) else None


def _of_layer(
    selection: Selection, row: int, places: range, tokens: Sequence[str], bank: KnowledgeBank
) -> list[Fields]:
    chosen = bank.entry_of_slot[selection.chosen[row]].tolist()
    candidates = bank.entry_of_slot[selection.candidates[row]].tolist()
    similarity = selection.similarity[row].tolist()
    return [
        {"token": token, "chosen": chosen[p], "similarity": round(similarity[p], 3), "candidates": candidates[p]}
        for p, token in zip(places, tokens, strict=True)
    ]


def entry_text(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """An entry as it is in the bank: cut off if its sentence is longer."""
    return tokenizer.decode([token for token in token_ids if token != PADDING]).strip()
