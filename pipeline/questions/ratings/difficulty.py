"""One scale of difficulty, 1 to 10, for problems of all sources.

Competition problems are commonly compared on this scale, and Omni-MATH uses it: 1 is the start of a school contest, 3
the start of the AIME, 5 its end or an easy olympiad problem, 7 a typical and 9 a hard IMO problem. The tables below
place MATH levels and contests on it. docs/data.md#difficulty.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

LOWEST, HIGHEST = 1.0, 10.0
UNRATED = "unrated"
_BANDS = (("elementary", 1.0), ("intermediate", 2.0), ("advanced", 3.5), ("competition", 5.0), ("olympiad", 7.0))
"""Each level begins at this difficulty and ends where the next one begins."""
LEVELS = (*(name for name, _ in _BANDS), UNRATED)

_OF_LEVEL = {"1": 1.0, "2": 1.5, "3": 2.0, "4": 3.0, "5": 4.0}
_CONTESTS: list[tuple[str, float, dict[int, float]]] = [
    # (name, difficulty, difficulty by problem number: last number -> difficulty)
    (r"amc[ _]?8", 1.5, {}),
    (r"amc[ _]?10", 2.0, {10: 1.5, 20: 2.0, 25: 3.0}),
    (r"amc(?![a-z])", 2.5, {10: 2.0, 20: 2.5, 25: 3.5}),
    (r"aime(?![a-z])", 4.5, {5: 3.0, 9: 4.0, 12: 5.0, 15: 6.0}),
    (r"hmmt", 4.5, {}),
    (r"olympiadbench", 5.0, {}),
    (r"gsm8?k", 1.0, {}),
    (r"usajmo|jbmo|junior", 6.0, {}),
    (r"usamo|putnam|national|selection", 7.5, {}),
    (r"imo(?![a-z])|international", 8.0, {}),
    (r"[a-z_ ]*olympiad|(?:apmo|cmo|bmo|brumo|egmo|rmo|inmo|cgmo|jmo|nmo|tmo)(?![a-z])", 6.5, {}),
]
_RULES = [(re.compile(rf"(?<![a-z])(?:{pattern})"), default, numbers) for pattern, default, numbers in _CONTESTS]
_NUMBER_OF_PROBLEM = re.compile(r"problem[s_ /#]*([0-9]{1,2})$")
_PRIOR_ATTEMPTS = 8
"""Number of attempts that weigh as much as the stated difficulty."""


class SolveRate(NamedTuple):
    """The share of a model's attempts at a problem that were right."""

    share: float
    num_attempts: int


def level_name(difficulty: float | None) -> str:
    if difficulty is None:
        return UNRATED
    starts = [start for _, start in _BANDS]
    return LEVELS[bisect_right(starts, difficulty) - 1]


def stated_difficulty(difficulty: str, level: str, sources: Sequence[str]) -> float | None:
    """The difficulty that the source states: as a number, as a level of MATH, or by naming a contest.

    Args:
        sources: texts that may name the contest, such as ``AIME 2024`` or the problem's URL.
    """
    number = _number(difficulty)
    if number is not None:
        return min(max(number, LOWEST), HIGHEST)
    rated = _OF_LEVEL.get(level.casefold().removeprefix("level").strip())
    return _of_contest(" ".join(sources).casefold()) if rated is None else rated


def difficulty_of(stated: float | None, measured: SolveRate | None) -> float | None:
    """The weighted mean of the stated and the measured difficulty; None if there is neither.

    If a share s of the attempts succeeded, the measured difficulty is 10 - 9 s. n attempts have weight n, the stated
    difficulty has weight 8.
    """
    if measured is None:
        return stated
    rated = HIGHEST - (HIGHEST - LOWEST) * measured.share
    if stated is None:
        return round(rated, 2)
    weight = measured.num_attempts / (measured.num_attempts + _PRIOR_ATTEMPTS)
    return round(stated + weight * (rated - stated), 2)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,2}(?:\.[0-9]{1,9})?", text) else None


def _of_contest(text: str) -> float | None:
    for rule, default, by_number in _RULES:
        if rule.search(text):
            number = _NUMBER_OF_PROBLEM.search(text)
            in_order = (rated for last, rated in by_number.items() if number and int(number[1]) <= last)
            return next(in_order, default)
    return None
