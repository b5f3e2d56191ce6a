"""Tokens of problems: the encoding of prompts and worked solutions, and the file that holds them."""

import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.data import arrow_files
from pipeline.data.arrow_files import ArrowRows, code_digest, list_lengths, made_once
from pipeline.data.table import ProblemTable
from pipeline.files import sha256
from pipeline.models import tokenizer as tokenizer_module
from pipeline.models.tokenizer import Tokenizer, batch_token_ids, end_of_turn_id, turns_token_ids
from pipeline.types import Problem

TOKENS = pa.schema(
    [("prompt", pa.list_(pa.int32())), ("completion", pa.list_(pa.int32())), ("learned", pa.list_(pa.bool_()))]
)
"""``learned``: for every token of the prompt, whether SFT learns it as a turn of the assistant. None: none."""
_TOKENIZER_FILES = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py"}


class ProblemTokens(NamedTuple):
    """The tokens of a problem."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    """Empty if the problem has no worked solution."""
    learned: tuple[bool, ...] | None = None
    """For every token of the prompt, whether SFT learns it as a turn of the assistant. None: none."""


class TokenTable:
    """The tokens of a table's problems, by row of the table's file. Pickled as a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: ArrowRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}

    def __getitem__(self, row: int) -> ProblemTokens:
        if self._file is None:
            self._file = ArrowRows(self.path)
        return as_tokens(self._file.row(row))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """The number of tokens of every prompt and of every completion: [num_rows] int32 each. No token is read."""
        batches = ArrowRows(self.path).all_batches
        prompt, completion = (
            np.concatenate([np.zeros(0, np.int32), *(list_lengths(batch[name]) for batch in batches)])
            for name in ("prompt", "completion")
        )
        return prompt, completion

    def context_lengths(self) -> np.ndarray:
        """The number of tokens before the first that SFT learns: [num_rows] int32."""
        lengths = [list_lengths(batch["prompt"]) for batch in ArrowRows(self.path).all_batches]
        for batch, of_batch in zip(ArrowRows(self.path).all_batches, lengths, strict=True):
            for row in np.flatnonzero(batch["learned"].is_valid().to_numpy(zero_copy_only=False)):
                of_batch[row] = batch["learned"][row].values.index(True).as_py()
        return np.concatenate([np.zeros(0, np.int32), *lengths])


def as_tokens(row: Mapping[str, Any]) -> ProblemTokens:
    """A row of ``TOKENS``."""
    learned = row["learned"]
    return ProblemTokens(tuple(row["prompt"]), tuple(row["completion"]), None if learned is None else tuple(learned))


@contextmanager
def new_tokens(problems: ProblemTable, model: Path, *, chat: bool) -> Iterator[tuple[TokenTable, Path | None]]:
    """The tokens of all rows of the table's file, and the path to write them to; None if they exist already.

    Args:
        model: directory with the tokenizer's files.
        chat: prompts go through its chat template.
    """
    made_by = code_digest(tokenizer_module.__file__, arrow_files.__file__, __file__)
    digest = hashlib.sha256(f"{made_by} {problems.path.parent.name} {chat}".encode())
    for library in ("transformers", "tokenizers"):
        digest.update(importlib.metadata.version(library).encode())
    for file in sorted(file for file in model.iterdir() if file.suffix in _TOKENIZER_FILES and file.is_file()):
        digest.update(f"{file.name} {sha256(file)}".encode())
    path = problems.path.with_name(f"tokens_{digest.hexdigest()[:16]}.arrow")
    with made_once(path) as hidden:
        yield TokenTable(path), hidden


def encode_problems(tokenizer: Tokenizer, problems: Sequence[Problem]) -> pa.RecordBatch:
    """Prompts as ``prompt_token_ids`` encodes them, and worked solutions with the token that ends them, as int32.

    That is the chat template's end of turn for a chat, and the tokenizer's eos for plain text.
    """
    prompts = batch_token_ids(tokenizer, problems)
    solutions = {row: problem.solution for row, problem in enumerate(problems) if problem.solution is not None}
    completions: list[list[int]] = [[] for _ in problems]
    learned: list[list[bool] | None] = [None for _ in problems]
    if solutions:
        end = end_of_turn_id(tokenizer) if problems[0].prompt_text is None else tokenizer.eos_token_id
        encoded = tokenizer(list(solutions.values()), add_special_tokens=False)["input_ids"]
        for row, ids in zip(solutions, encoded, strict=True):
            completions[row] = [*ids, end]
            if problems[row].learns_all_turns:
                prompts[row], learned[row] = turns_token_ids(tokenizer, problems[row].prompt, end)
    columns = zip((prompts, completions, learned), TOKENS.types, strict=True)
    return pa.record_batch([pa.array(column, type) for column, type in columns], schema=TOKENS)
