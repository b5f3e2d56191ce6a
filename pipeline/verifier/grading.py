"""Judge an answer against a gold answer: exact text, exact numbers, and the rest by a child process.

Nothing here evaluates text as code, and numbers are bounded before they are expanded.
"""

import re
import string
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple

from pipeline.verifier.extract import extract
from pipeline.verifier.verdict import Method, Outcome, Verdict

Reply = Literal["equal", "different", "bad_gold", "timeout"]
Compare = Callable[[str, str], Reply]
"""Compares the answer and the gold answer as mathematics."""

MAX_NUMBER_CHARS = 1000
MAX_MATH_CHARS = 2000
"""Longer answers are wrong without being parsed."""

_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")
_DOLLAR = re.compile(r"(?<!\\)\$")
_THIN_SPACE = re.compile(r"(?<!\\)\\[!,;: ]")
_WRAPPER = re.compile(r"\\(?:text|textbf|textrm|mathrm|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([0-9]+)\}\s*\{([0-9]+)\}")
_COMMAND = re.compile(r"\\(?:begin|end|operatorname|mathbb|mathcal)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_MATH_WORD = re.compile(r"sqrt|pi|sin|cos|tan|cot|sec|csc|ln|log|exp|min|max|gcd|lcm|det|mod|inf|and|or", re.IGNORECASE)
_MULTIPLIER = re.compile(r"hundred|thousand|million|billion|trillion|dozen|pairs?|half", re.IGNORECASE)

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_PLAIN_NUMBER = re.compile(
    rf"(?:(?P<name>[A-Za-z])\s*=)?(?P<head>(?:[-+\s]|\\?\$)*)"
    rf"(?:(?:(?P<whole>[0-9]+)\s+)?(?P<numerator>{_DIGITS})\s*/\s*(?P<denominator>{_DIGITS})"
    rf"|(?P<decimal>(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}})?))"
    r"(?:\s*(?P<percent>\\?%)|\s+(?P<unit>[A-Za-z]{2,}(?:[ '-]+[A-Za-z]+)*(?:\s*\^\{?[23]\}?)?))?[\s.]*"
)


class _Quantity(NamedTuple):
    value: Fraction
    name: str
    """``x`` in ``x = 5``; empty for none."""
    unit: str
    """Lower case and singular; empty for none."""


def judge(completion: str, gold: str, compare: Compare, *, all_methods: bool = False) -> Verdict:
    """The verdict on a completion; ``compare`` is called only when text and numbers do not decide.

    ``exact`` is tried first, then ``numeric`` (exact rational arithmetic), then ``symbolic`` (``compare``).
    Two plain numbers of different value are different: ``symbolic``, which rounds, is not asked.
    """
    if not set(_compact(gold)) - set(string.punctuation):
        return Verdict("bad_gold", answer=extract(completion))
    answer = extract(completion)
    if answer is None:
        return Verdict("unparsed")
    strict = _compact(answer) == _compact(gold)
    numeric = _same_number(answer, gold)
    undecided = not strict and numeric is None
    reply = _same_math(answer, gold, compare) if undecided or all_methods else None

    method: Method | None = None
    if strict:
        method = "exact"
    elif numeric:
        method = "numeric"
    elif undecided and reply == "equal":
        method = "symbolic"
    outcome: Outcome = "correct" if method else "incorrect"
    if undecided and (reply == "timeout" or reply == "bad_gold"):
        outcome = reply
    if not all_methods:
        return Verdict(outcome, method, answer)
    return Verdict(outcome, method, answer, strict, None if reply == "timeout" else reply == "equal", bool(numeric))


def _compact(text: str) -> str:
    """The text without white space, math delimiters and one final full stop. An unpaired ``$`` is currency."""
    return "".join(_without_math_delimiters(text).split()).removesuffix(".")


def _without_math_delimiters(text: str) -> str:
    text = _DELIMITER.sub("", text)
    return _DOLLAR.sub("", text) if len(_DOLLAR.findall(text)) % 2 == 0 else text


def _clean(text: str) -> str:
    """One spelling for what LaTeX and Unicode write in several ways; the meaning stays the same."""
    text = _without_math_delimiters(text).strip("* \n")
    text = text.translate({ord("−"): "-", ord("–"): "-", ord("\n"): " "}).replace("{,}", ",")
    return _WRAPPER.sub(r" \1 ", _THIN_SPACE.sub("", text)).strip()


def _same_number(answer: str, gold: str) -> bool | None:
    """None: at least one of the two is not a plain number."""
    left, right = _read_number(answer), _read_number(gold)
    if left is None or right is None:
        return None
    if any(a and b and a != b for a, b in [(left.name, right.name), (left.unit, right.unit)]):
        return False
    if left.value == right.value:
        return True
    if "%" in (left.unit, right.unit) and left.unit != right.unit:
        return left.value == right.value / 100 if right.unit else left.value / 100 == right.value
    return False


def _read_number(text: str) -> _Quantity | None:
    """A plain number, such as ``-1,234.50``, ``x = 5``, ``3/4``, ``1\\frac{1}{2}``, ``50%``, ``$5`` or ``3 eggs``."""
    if len(text) > MAX_NUMBER_CHARS:
        return None
    match = _PLAIN_NUMBER.fullmatch(_FRACTION.sub(r" \1/\2", _clean(text)))
    if match is None:
        return None
    unit = (match["unit"] or "").lower().strip()
    if any(_MATH_WORD.fullmatch(word) or _MULTIPLIER.fullmatch(word) for word in unit.replace("-", " ").split()):
        return None
    if match["decimal"]:
        value = Fraction(match["decimal"].replace(",", "").removesuffix("."))
    else:
        denominator = int(match["denominator"].replace(",", ""))
        if denominator == 0:
            return None
        value = Fraction(int(match["numerator"].replace(",", "")), denominator) + int(match["whole"] or 0)
    if match["percent"] or unit in ("percent", "pct"):
        unit = "%"
    elif "$" in match["head"]:
        unit = "dollar"
    return _Quantity(-value if match["head"].count("-") % 2 else value, match["name"] or "", unit.removesuffix("s"))


def _same_math(answer: str, gold: str, compare: Compare) -> Reply:
    """Words are compared as words: to a LaTeX parser "cat" and "act" are the same product of letters."""
    if len(gold) > MAX_MATH_CHARS:
        return "bad_gold"
    if len(answer) > MAX_MATH_CHARS:
        return "different"
    answer, gold = _clean(answer), _clean(gold)
    if _has_words(answer) or _has_words(gold):
        return "equal" if _compact(answer).casefold() == _compact(gold).casefold() else "different"
    return compare(answer, gold)


def _has_words(text: str) -> bool:
    return any(not _MATH_WORD.fullmatch(word) for word in _WORD.findall(_COMMAND.sub(" ", text)))
