"""Compares a written answer with the right option."""

from collections.abc import Sequence

from pipeline.data.omcq.facts import normal

COMPARISONS = ("exact", "startswith", "contains")


def normalized(text: str) -> str:
    """Without case, white space around it, and the full stop at its end."""
    return normal(text).rstrip(".。").rstrip()


def compare(answer: str, right: str, options: Sequence[str]) -> dict[str, bool]:
    """Is the answer the right option (``exact``), does it begin with it, does it contain it and no other option?"""
    written, wanted = normalized(answer), normalized(right)
    others = {normalized(option) for option in options} - {wanted}
    return {
        "exact": written == wanted,
        "startswith": written.startswith(wanted),
        "contains": wanted in written and not any(other in written for other in others),
    }
