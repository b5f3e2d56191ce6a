"""What the verifier answers."""

from dataclasses import dataclass
from typing import Literal

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
    """Each comparison on its own; filled by ``grade(..., all_methods=True)`` only."""
