"""Tokens of knowledge entries: one sentence each, all of one length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DataError
from pipeline.models.tokenizer import Tokenizer

TEXTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class EntryTokens:
    """The tokens of a bank's entries."""

    token_ids: np.ndarray
    """[num_entries, knowledge_length] int32, padded on the right."""
    mask: np.ndarray
    """[num_entries, knowledge_length] bool: not padding. The padding's id may be a real token's too."""
    cut: tuple[int, ...]
    """Entries that were too long and lost their ends, maybe with the object."""


def entry_token_ids(
    tokenizer: Tokenizer, texts: Sequence[str], knowledge_length: int = 16, pad_id: int = 0
) -> EntryTokens:
    """Encode sentences without special tokens.

    A sentence is encoded as it begins a text, so an object within it has the tokens that it has after a space.

    Raises:
        DataError: an entry has no tokens.
    """
    token_ids = np.full((len(texts), knowledge_length), pad_id, np.int32)
    lengths = np.zeros(len(texts), np.int64)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = tokenizer([text.strip() for text in texts[start : start + TEXTS_AT_ONCE]], add_special_tokens=False)
        for row, ids in enumerate(part["input_ids"], start):
            lengths[row] = len(ids)
            token_ids[row, : len(ids)] = ids[:knowledge_length]
    if not lengths.all():
        raise DataError(f"knowledge entries must have a text, got an empty one as entry {int(lengths.argmin())}.")
    mask = np.arange(knowledge_length) < lengths[:, None]
    return EntryTokens(token_ids, mask, tuple(np.flatnonzero(lengths > knowledge_length).tolist()))
