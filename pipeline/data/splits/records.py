"""Usable rows of a data set as records, and a count of the rows left out."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pipeline.config import DataConfig
from pipeline.data.answers import read_answer
from pipeline.data.problems import unique_name
from pipeline.data.rows import Row
from pipeline.data.selection import natural_order
from pipeline.data.sources import is_embedded, pooled_rows
from pipeline.data.splits.settings import SplitSettings

NUM_EXAMPLES = 3
_FIX = "Name yours by --question-field, --answer-field, --solution-field, --level-field, --type-field."
_NO_LEVEL = {"", "nan", "none", "null", "na", "unknown"}


@dataclass(frozen=True)
class Record:
    """A usable row, with the columns of the files that are written."""

    problem: str
    solution: str | None
    answer: str
    level: str
    type: str | None
    source: str
    """Hub name, file name, or directory and file name: the same on every machine."""
    id: str
    """A hash of the problem's text, with -2, -3 where the same text has several answers."""


@dataclass
class LeftOut:
    """Rows that are in neither file, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The first few: file, and row counted from 1."""

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] += 1
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(where)

    def lines(self) -> list[str]:
        """``2 without a usable level (math/train.parquet row 7, ...)``"""
        return [
            f"{count:,} {reason} ({', '.join(self.examples[reason])}{', ...' if count > NUM_EXAMPLES else ''})"
            for reason, count in sorted(self.counts.items())
        ]


class SplitResult(NamedTuple):
    """The two sides of a split, and notes about it."""

    train: list[Record]
    test: list[Record]
    left_out: LeftOut
    notes: list[str]
    """A line on problems with several answers, and one for every level that is on one side only."""

    def counts(self, key: Callable[[Record], str | None]) -> dict[str, dict[str, int]]:
        """Level or type -> rows in train and test, in natural order."""
        train, test = (Counter(key(record) or "-" for record in side) for side in (self.train, self.test))
        return {name: {"train": train[name], "test": test[name]} for name in sorted(train | test, key=natural_order)}


def read_records(settings: SplitSettings) -> tuple[list[Record], LeftOut]:
    """The usable rows, each pair of problem and answer once. Incomplete rows are left out and counted, never repaired.

    If the settings name a source of solutions, a row without one is incomplete. In the embedded sets only some rows
    have one.
    """
    config = settings.data_config()
    records, left_out = [], LeftOut()
    ids: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for source, rows in pooled_rows(config, settings.split, fix=_FIX):
        for number, row in enumerate(rows, 1):
            where = f"{source} row {number}"
            record = _record(row, config, source)
            if isinstance(record, str):
                left_out.add(record, where)
            elif (record.problem, record.answer) in seen:
                left_out.add("repeating a problem and its answer", where)
            else:
                seen.add((record.problem, record.answer))
                unique_id = unique_name(hashlib.sha256(record.problem.encode()).hexdigest()[:12], ids)
                records.append(replace(record, id=unique_id))
    return records, left_out


def is_usable_level(level: str) -> bool:
    """True for ``Level 3``, ``3``, ``hard``; False for ``Level ?``, an empty level, or NaN."""
    name = level.casefold().removeprefix("level")
    return "".join(letter for letter in name if letter.isalnum()) not in _NO_LEVEL


def _record(row: Row, config: DataConfig, source: str) -> Record | str:
    """A record without an id, or the reason why the row is unusable."""
    names = config.fields
    problem, level = row.question(names.question), row.text(names.level)
    solution, answer = read_answer(row.text(names.answer), config)
    if names.solution:
        solution = row.text(names.solution)
    needs_solution = not is_embedded(config) and (names.solution or config.gold_format != "plain")
    if not problem:
        return "without a problem"
    if not is_usable_level(level):
        return "without a usable level"
    if needs_solution and not solution:
        return "without a solution"
    if not answer:
        return "without an answer"
    return Record(problem, solution or None, answer, level, row.text(names.type) or None, source, id="")
