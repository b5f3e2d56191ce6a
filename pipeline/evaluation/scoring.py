"""Scores one completion: three independent scores, and an outcome."""

from collections.abc import Sequence
from typing import Any

from pipeline.types import Completion
from pipeline.verifier import Grader, Verdict, extract

OUTCOMES = ("correct", "incorrect", "unparsed", "truncated", "timeout", "bad_gold")
"""The verifier's outcomes, and ``truncated``: cut off by the length limit before an answer was marked."""
SCORES = ("strict", "symbolic", "numeric")
NUMERIC_TOLERANCE = 1e-5
"""Relative. docs/verifier.md lists the pairs of numbers that it applies to."""


def score(completions: Sequence[Completion], golds: Sequence[str], grader: Grader) -> list[dict[str, Any]]:
    """The graded part of each completion's row in eval_results.jsonl."""
    pairs = [(completion.text, gold) for completion, gold in zip(completions, golds, strict=True)]
    verdicts = grader.grade_batch(pairs, all_methods=True)
    return [_scored(completion, verdict) for completion, verdict in zip(completions, verdicts, strict=True)]


def _scored(completion: Completion, verdict: Verdict) -> dict[str, Any]:
    return {
        "answer": verdict.answer,
        "outcome": outcome(completion, verdict),
        "method": verdict.method,
        **{name: getattr(verdict, name) for name in SCORES},
    }


def outcome(completion: Completion, verdict: Verdict) -> str:
    """The verifier's outcome, but ``truncated`` for a completion that was cut off without a marked answer: the verifier
    then judged some number in its text."""
    was_cut_off = completion.stop_reason == "length" and verdict.outcome in ("incorrect", "unparsed")
    if was_cut_off and extract(completion.text, fallback=False) is None:
        return "truncated"
    return verdict.outcome
