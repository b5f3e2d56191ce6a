"""The entries that training examples are about, and counterfactual versions of the examples.

A question with options may be asked counterfactually: another option is written into its entry and becomes the answer.
Only a model that reads the entry can then be right.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from pipeline.data.omcq import KnowledgeEntry
from pipeline.data.rows import Row
from pipeline.errors import DataError
from pipeline.models.memory.entries import as_entry
from pipeline.models.tokenizer import Tokenizer, end_of_turn_id
from pipeline.seeds import derive_seed
from pipeline.types import Problem

TARGET_FIELDS = ("entry_id", "entry_ids", "entry_scores", "options", "answer_index")


@dataclass(frozen=True)
class Target:
    """The entries that an example is about."""

    entries: tuple[int, ...]
    """Indices into the bank's file; the first is the one that its answer is in."""
    scores: tuple[float, ...]
    """Relevance of each, above 0."""
    options: tuple[str, ...] = ()
    """Texts of the options; empty for an example without."""
    answer_index: int = 0


def read_targets(rows: Iterable[Row], id_field: str, num_entries: int) -> dict[str, Target]:
    """The target of each row, by the row's id.

    A row has ``entry_id``, or ``entry_ids`` and ``entry_scores``. It may have ``options`` and ``answer_index``.

    Raises:
        DataError: a row has none, or names an entry that is not in the bank.
    """
    targets = {}
    for row in rows:
        name = row.text(id_field)
        if not name or name in targets:
            raise DataError(f"{id_field} must be a different id in every row, got {name!r} twice, or an empty one.")
        try:
            targets[name] = _target(row, num_entries)
        except ValueError as error:
            raise DataError(f"example {name}: {error}.") from None
    return targets


def _target(row: Row, num_entries: int) -> Target:
    entries = row.items("entry_ids") or [_whole(row, "entry_id") if "entry_id" in row else None]
    scores = row.items("entry_scores") or [1.0] * len(entries)
    if not all(type(entry) is int and 0 <= entry < num_entries for entry in entries):
        raise ValueError(f"entry_id must be the line of an entry of memory.knowledge, from 0 on, got {entries!r:.80}")
    if len(scores) != len(entries) or not all(_is_positive(score) for score in scores):
        raise ValueError(f"entry_scores must be a positive number for each of entry_ids, got {scores!r:.80}")
    options = tuple(map(str, row.items("options")))
    index = _whole(row, "answer_index") if options else 0
    if options and not 0 <= index < len(options):
        raise ValueError(f"answer_index must be the index of one of {len(options)} options, got {index}")
    return Target(tuple(entries), tuple(map(float, scores)), options, index)


def _whole(row: Row, name: str) -> int:
    text = row.text(name)
    if not text.removeprefix("-").isdecimal():
        raise ValueError(f"{name} must be a whole number, got {text!r:.80}")
    return int(text)


def _is_positive(score: object) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and 0 < score < math.inf


@dataclass(frozen=True)
class GivenExample:
    """An example as it is trained, with the text of its entry."""

    entry: int
    entry_tokens: tuple[int, ...]
    completion: tuple[int, ...]
    is_counterfactual: bool


class Counterfactuals:
    """Examples, each with its own entry; some are rewritten together with their entry.

    Args:
        frac: share of the examples that are rewritten.
        length: tokens of an entry.
    """

    def __init__(
        self, knowledge: Sequence[KnowledgeEntry], tokenizer: Tokenizer, frac: float, length: int, seed: int
    ) -> None:
        self._knowledge, self._tokenizer = knowledge, tokenizer
        self._frac, self._length, self._seed = frac, length, seed
        self._end = end_of_turn_id(tokenizer)

    def make(self, problem: Problem, target: Target, completion: tuple[int, ...], step: int) -> GivenExample:
        """The example as step ``step`` trains it: always the same, whenever and wherever it is made."""
        draw = Random(derive_seed(self._seed, "counterfactual", step, problem.id))
        entry, answer = self._knowledge[target.entries[0]], problem.solution or ""
        others = [option for index, option in enumerate(target.options) if index != target.answer_index]
        is_rewritable = bool(others) and target.options[target.answer_index] in answer
        if not is_rewritable or draw.random() >= self._frac:
            return GivenExample(target.entries[0], self._entry_tokens(entry.text), completion, False)
        option = draw.choice(others)
        answer = answer.replace(target.options[target.answer_index], option)
        tokens = (*self._tokenizer.encode(answer, add_special_tokens=False), self._end)
        return GivenExample(target.entries[0], self._entry_tokens(entry.text_with(option)), tokens, True)

    def _entry_tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(as_entry(text), add_special_tokens=False)[: self._length])


def in_groups(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of sequences of similar length, in groups of at most ``max_tokens`` tokens, padding included."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if group and lengths[group[0]] * (len(group) + 1) > max_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
