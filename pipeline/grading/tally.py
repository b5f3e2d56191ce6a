"""Counts of verdicts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.verifier import Verdict

NUM_EXAMPLES = 3


class UngradedRow(NamedTuple):
    """A row whose completion could not be graded."""

    number: int
    """Line or row, from 1."""
    gold: str
    answer: str | None


@dataclass
class Tally:
    """Verdicts by outcome and by method, with the first rows that could not be graded."""

    outcomes: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[UngradedRow]] = field(default_factory=lambda: {"timeout": [], "bad_gold": []})

    def count(self, number: int, gold: str, verdict: Verdict) -> None:
        self.outcomes[verdict.outcome] += 1
        if verdict.method:
            self.methods[verdict.method] += 1
        kept = self.examples.get(verdict.outcome)
        if kept is not None and len(kept) < NUM_EXAMPLES:
            kept.append(UngradedRow(number, gold, verdict.answer))

    def add(self, other: "Tally") -> None:
        """Add the tally of a later part of the file."""
        self.outcomes.update(other.outcomes)
        self.methods.update(other.methods)
        for outcome, kept in self.examples.items():
            kept += other.examples[outcome][: NUM_EXAMPLES - len(kept)]
