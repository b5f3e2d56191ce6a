r"""Reads a whole answer: an expression, a time, a number in another base, a list with words in it, or only words."""

import re
from fractions import Fraction

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.reading.parser import ReadError, read
from pipeline.verifier.reading.tree import Node

_MAX_PARTS = 50
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_BASED = re.compile(
    r"(?P<sign>-?)\(?(?P<digits>[0-9A-F ]+(?:\.[0-9A-F]+)?)\)?\s*"
    r"(?:_\s*[{(]*\s*|[(,]*\s*(?:in )?base[\s-]*)"
    r"(?P<base>\d{1,2}|[a-z]+)\s*[)}]*",
    re.IGNORECASE,
)
_BASE_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
}  # fmt: skip
_TO = re.compile(r"(\S+) to (\S+)(?: to (\S+))?")
_MARKED_SEPARATOR = re.compile(rf"{TEXT_OPEN}\s*,?\s*(and|or|,)\s*{TEXT_CLOSE}")
_PART_SEPARATOR = re.compile(r"\s*[,;]\s*(?:and\s|or\s)?|\s+and\s+|\s+or\s+")


def tree_of(text: str, *, thousands: bool = True) -> Node:
    """The tree of any answer, as ``clean`` leaves it. Text that is not mathematics becomes a ``words`` node.

    Args:
        thousands: as for ``read``.
    """
    unmarked = text.replace(TEXT_OPEN, "").replace(TEXT_CLOSE, "")
    if node := _read_time(unmarked) or _read_based(unmarked):
        return node
    if match := _TO.fullmatch(unmarked):
        text = ":".join(part for part in match.groups() if part)
    try:
        return read(text, thousands=thousands)
    except ReadError:
        return _read_parts(text) or Node("words", (text,))


def _read_time(text: str) -> Node | None:
    match = _TIME.fullmatch(text.replace(" :", ":").replace(": ", ":"))
    if match is None or not (match[2] or match[4]):
        return None
    return Node("time", (int(match[1]), int(match[2] or 0), int(match[3] or 0), (match[4] or "").lower()))


def _read_based(text: str) -> Node | None:
    """``1011_2``, ``(1011)_{2}``, ``1011 base two`` and ``-1A.8_16``."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    digits, name = match["digits"].replace(" ", ""), match["base"].lower()
    base = int(name) if name.isdigit() else _BASE_WORDS.get(name, 0)
    whole, _, part = digits.partition(".")
    if base < 2:
        return None
    try:
        value = Fraction(int(whole + part, base), base ** len(part))
    except ValueError:
        return None
    return Node("based", (match["sign"] + digits.upper(), base, -value if match["sign"] else value))


def _read_parts(text: str) -> Node | None:
    r"""``red, 3 and \text{blue}``: a list in which some parts are words."""
    marked = _MARKED_SEPARATOR.sub(r" \1 ", text)
    parts = [part.strip() for part in _PART_SEPARATOR.split(marked)]
    if not 2 <= len(parts) <= _MAX_PARTS or not all(parts) or re.search(r"[(\[{]", marked):
        return None
    separator = "or" if re.search(r"\sor\s", marked) else ","
    return Node("list", ((separator,) * (len(parts) - 1), *map(_read_part, parts)))


def _read_part(text: str) -> Node:
    try:
        return read(text)
    except ReadError:
        return Node("words", (text,))
