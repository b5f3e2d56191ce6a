"""Checks that SFT can learn every conversation of a file, using the code with which training reads it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from pipeline.config import DataConfig, ModelConfig, SFTConfig
from pipeline.curriculum.examples import sft_sequence, shortened
from pipeline.data.arrow_files import ROWS_PER_BATCH
from pipeline.data.problems import conversation_problem
from pipeline.data.rows import Row
from pipeline.data.sources import iter_rows
from pipeline.data.tokens import as_tokens, encode_problems
from pipeline.errors import DataError
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import Tokenizer, load_tokenizer
from pipeline.training.batching import TokenSequence
from pipeline.types import Problem

FAULTS_PER_REASON = 10
Part = tuple[str, bool]
"""A text, and whether it is learned."""


@dataclass
class CheckedFile:
    """The examples that SFT would make of a file."""

    num_tokens: list[int] = field(default_factory=list)
    """Of every conversation."""
    num_learned: list[int] = field(default_factory=list)
    examples: list[list[Part]] = field(default_factory=list)
    """The texts of the first conversations."""
    faults: Counter[str] = field(default_factory=Counter)
    """Reason -> rows that would not train."""
    messages: list[str] = field(default_factory=list)
    """The first of each reason, by row."""

    def fault(self, reason: str, message: str) -> None:
        self.faults[reason] += 1
        if self.faults[reason] <= FAULTS_PER_REASON:
            self.messages.append(message)


def quantiles(numbers: list[int]) -> dict[str, int]:
    """Minimum, median, 95th percentile and maximum. Each of them is one of the given numbers, never interpolated."""
    shares = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {name: int(np.quantile(numbers, share, method="inverted_cdf")) for name, share in shares.items()}


def check_conversations(path: Path, model: ModelConfig, max_length: int, num_examples: int) -> CheckedFile:
    """Read and encode every row.

    Args:
        max_length: as ``SFTConfig.max_length``.

    Raises:
        ConfigError: max_length is out of range.
        DataError: the file cannot be read.
        ModelError: the tokenizer cannot be loaded, or its chat template cannot show the conversations.
    """
    settings = SFTConfig(max_length=max_length)
    tokenizer = load_tokenizer(resolve_model(model), model)
    checked = CheckedFile()
    problems = _problems(path, checked)
    while chunk := list(islice(problems, ROWS_PER_BATCH)):
        encoded = encode_problems(tokenizer, [problem for _, problem in chunk]).to_pylist()
        for (place, _), tokens in zip(chunk, encoded, strict=True):
            sequence = sft_sequence(as_tokens(tokens))
            checked.num_tokens.append(len(sequence))
            checked.num_learned.append(sequence.num_learned)
            if len(checked.examples) < num_examples:
                checked.examples.append(parts(tokenizer, sequence))
            if shortened(sequence, settings) is None:
                checked.fault("too long", f"{place}: {len(sequence)} tokens are too long for {max_length}.")
    return checked


def parts(tokenizer: Tokenizer, sequence: TokenSequence) -> list[Part]:
    """The text of a sequence, divided where learning begins and ends."""
    tokens = (*sequence.prompt, *sequence.completion)
    learned = [*[False] * len(sequence.prompt), *sequence.learned_mask.tolist()]
    runs = groupby(zip(tokens, learned, strict=True), key=lambda pair: pair[1])
    return [(tokenizer.decode([token for token, _ in run]), is_learned) for is_learned, run in runs]


def _problems(path: Path, checked: CheckedFile) -> Iterator[tuple[str, Problem]]:
    """The conversations with their places. Malformed rows are noted."""
    config = DataConfig(name=str(path), layout="conversations")
    ids: dict[str, int] = {}
    for row in iter_rows(config, "train"):
        if problem := _problem(row, config, ids, checked):
            yield row.place, problem


def _problem(row: Row, config: DataConfig, ids: dict[str, int], checked: CheckedFile) -> Problem | None:
    try:
        problem = conversation_problem(row, config, "train", ids)
    except DataError as error:
        checked.fault("malformed", str(error))
        return None
    if problem is None:
        checked.fault("no answer", f"{row.place}: the last turn holds no answer.")
    return problem
