"""Tokens of a bank's entries: one sentence each, all of one length."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import DataError
from pipeline.models.memory.bank import PADDING
from pipeline.models.tokenizer import Tokenizer

TEXTS_AT_ONCE = 10_000


def as_entry(text: str) -> str:
    """An entry as it is tokenized: as if within a text, so that its words have the tokens they have in a question."""
    return f" {text.strip()}"


def entry_token_ids(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> tuple[Tensor, int]:
    """The first ``length`` tokens of each entry, [E, L] int32, padded with PADDING; and how many were longer.

    Raises:
        DataError: an entry has no text.
    """
    if empty := [index for index, text in enumerate(texts) if not text.strip()]:
        raise DataError(f"knowledge entries must have a text, got an empty one as entry {empty[0]}.")
    token_ids, num_cut = torch.full((len(texts), length), PADDING, dtype=torch.int32), 0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = [as_entry(text) for text in texts[start : start + TEXTS_AT_ONCE]]
        for row, ids in enumerate(tokenizer(part, add_special_tokens=False)["input_ids"], start):
            num_cut += len(ids) > length
            kept = torch.tensor(ids[:length], dtype=torch.int32)
            token_ids[row, : len(kept)] = kept
    return token_ids, num_cut


def entries_digest(token_ids: Tensor) -> str:
    """SHA-256 of the entries' token ids [E, L] alone: banks with equal digests hold the same entries."""
    return hashlib.sha256(token_ids.cpu().contiguous().numpy().data).hexdigest()
