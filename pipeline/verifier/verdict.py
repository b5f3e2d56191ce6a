"""The result types of the verifier, and what passes between its parts."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Outcome = Literal["correct", "incorrect", "unparsed", "timeout", "bad_gold"]
Method = Literal["exact", "symbolic", "numeric"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one completion."""

    outcome: Outcome
    """``unparsed``: no final answer found. ``bad_gold``: the gold answer cannot be parsed.
    ``timeout``: grading passed its deadline or memory limit."""
    method: Method | None = None
    """The first comparison that matched; None unless the outcome is ``correct``."""
    answer: str | None = None
    """The final answer found in the completion."""
    strict: bool | None = None
    symbolic: bool | None = None
    numeric: bool | None = None
    """Each comparison on its own; filled only by ``grade(..., all_methods=True)``."""


class Job(NamedTuple):
    """A pair of answers for a child process to compare."""

    answer: str
    gold: str
    all_methods: bool = False


class Comparison(NamedTuple):
    """The result of a ``Job``. None: not worked out."""

    symbolic: bool | None = None
    numeric: bool | None = None
    failure: Literal["timeout", "bad_gold"] | None = None

    @property
    def is_equal(self) -> bool:
        return bool(self.symbolic or self.numeric)
