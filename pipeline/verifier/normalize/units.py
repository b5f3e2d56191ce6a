"""Units of measurement: their dimension and their exact size. The tables follow SI, NIST and common usage."""

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from pipeline.verifier.normalize.languages import PERCENT as PERCENT_WORDS
from pipeline.verifier.normalize.languages import is_about_the_number
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN


class Unit(NamedTuple):
    """A product of powers of dimensions, times a factor."""

    dimensions: tuple[tuple[str, int], ...]
    """``(("length", 2),)`` for an area. A word that is not a unit, such as ``apple``, is its own dimension."""
    factor: Fraction


NO_UNIT = Unit((), Fraction(1))
PERCENT = Unit((("%", 1),), Fraction(1))

_TABLE = {
    "length": {
        "mm": "0.001", "millimeter": "0.001", "millimetre": "0.001", "cm": "0.01", "centimeter": "0.01",
        "centimetre": "0.01", "dm": "0.1", "m": "1", "meter": "1", "metre": "1", "km": "1000", "kilometer": "1000",
        "kilometre": "1000", "in": "0.0254", "inch": "0.0254", "inche": "0.0254", "ft": "0.3048", "foot": "0.3048",
        "feet": "0.3048", "yd": "0.9144", "yard": "0.9144", "mi": "1609.344", "mile": "1609.344",
    },
    "mass": {
        "mg": "0.001", "milligram": "0.001", "g": "1", "gm": "1", "gram": "1", "kg": "1000",
        "kilogram": "1000", "kilo": "1000", "lb": "453.59237", "pound": "453.59237", "oz": "28.349523125",
        "ounce": "28.349523125",
    },
    "time": {
        "s": "1", "sec": "1", "second": "1", "min": "60", "minute": "60", "h": "3600", "hr": "3600", "hour": "3600",
        "day": "86400", "week": "604800", "ms": "0.001", "millisecond": "0.001",
    },
    "month": {"month": "1", "mo": "1", "year": "12", "yr": "12", "decade": "120"},
    "volume": {
        "ml": "0.001", "milliliter": "0.001", "millilitre": "0.001", "l": "1", "liter": "1", "litre": "1",
    },
    "cup": {"cup": "1", "pint": "2", "quart": "4", "gallon": "16", "gal": "16"},
    "dollar": {"$": "1", "dollar": "1", "usd": "1", "buck": "1", "cent": "0.01", "¢": "0.01"},
    "euro": {"€": "1", "euro": "1", "eur": "1"},
    "sterling": {"£": "1", "gbp": "1", "quid": "1"},
    "yen": {"¥": "1", "yen": "1", "jpy": "1"},
    "rupee": {"₹": "1", "rupee": "1", "inr": "1"},
    "angle": {"degree": "1", "deg": "1", r"^\circ": "1", r"^{\circ}": "1", r"\circ": "1", r"\degree": "1"},
    "radian": {"rad": "1", "radian": "1"},
    "temperature": {"degree celsius": "1", r"^\circ c": "1", r"^{\circ}c": "1", r"^{\circ} c": "1", r"^\circc": "1"},
    "%": {
        "%": "1", "percent": "1", "pct": "1", "per cent": "1", "percentage": "1", "percentage point": "1",
        **dict.fromkeys(PERCENT_WORDS, "1"),
    },
}  # fmt: skip
_KNOWN = {word: Unit(((what, 1),), Fraction(size)) for what, words in _TABLE.items() for word, size in words.items()}
_KNOWN["mph"] = Unit((("length", 1), ("time", -1)), Fraction("1609.344") / 3600)
_KNOWN["kph"] = _KNOWN["kmh"] = Unit((("length", 1), ("time", -1)), Fraction(1000, 3600))
_GENERIC = frozenset(("unit", "total", "in total", "altogether", "in all", "exactly", "answer", "only"))
_FILLER = re.compile(r"\b(?:of|the|a|an|in total|total|altogether|in all|exactly|each|left|now|more|away|long|old)\b")
_POWER = re.compile(r"\s*\^?\s*\{?\s*([23])\s*\}?$")
_EXPONENT = re.compile(r"\^\s*\{?\s*-?[0-9]\s*\}?")
_WORD_AND_POWER = re.compile(r"([a-z]+)\s?[23](?![0-9])")
_PART_OF_A_NUMBER = re.compile(
    r"(?:squared|cubed|factorial|(?:half|halves|thirds?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?"
    r"|hundredths?|thousandths?)(?:\s+of\b.*)?)"
)
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}


@lru_cache(4096)
def read_unit(text: str) -> Unit:
    """The unit that words stand for. Other words are a dimension of their own: 3 eggs are not 3 cups.

    Raises:
        ValueError: the text is a variable, or part of the expression before it.
    """
    marked = TEXT_OPEN in text
    text = text.replace(TEXT_OPEN, " ").replace(TEXT_CLOSE, " ").strip(" .,;:-()!").lower()
    if not text or text in _GENERIC:
        return NO_UNIT
    if not marked and len(text) <= 2 and text.isascii() and text not in _KNOWN:
        raise ValueError(f"{text} is a variable, not a unit")
    if (
        not marked
        and re.search(r"\^", text)
        and not re.search(r"\\circ|[a-z]{3}|(?:cm|mm|km|m|ft|in|mi|yd|s)\s*\^", text)
    ):
        raise ValueError(f"{text} is a product, not a unit")
    if _PART_OF_A_NUMBER.fullmatch(text) or _has_number(text) or is_about_the_number(text):
        raise ValueError(f"{text} belongs to the number")
    above, *below = re.split(r"\s*/\s*|\s+per\s+|\s+an?\s+(?=hour|minute|day|week)", text)
    dimensions: Counter[str] = Counter()
    factor = Fraction(1)
    for part, sign in [(above, 1), *((part, -1) for part in below)]:
        unit, power = _read_part(part)
        for what, exponent in unit.dimensions:
            dimensions[what] += sign * power * exponent
        factor *= unit.factor ** (sign * power)
    return Unit(tuple(sorted((what, power) for what, power in dimensions.items() if power)), factor)


def _has_number(text: str) -> bool:
    """``times 3`` and ``out of 6``, but not ``cm^2`` or ``cm2``."""
    text = _WORD_AND_POWER.sub(lambda match: "" if _known(match[1]) else match[0], _EXPONENT.sub("", text))
    return any(c.isdigit() for c in text)


def _read_part(text: str) -> tuple[Unit, int]:
    """``square cm``, ``cm^2`` and ``centimeters squared`` -> (centimetre, 2)."""
    if known := _known(text):
        return known, 1
    text = re.sub(r"\s+", " ", _FILLER.sub(" ", text)).strip()
    power = 1
    if (match := _POWER.search(text)) and not text[: match.start()].endswith("\\circ"):
        power, text = int(match[1]), text[: match.start()]
    words = [word for word in text.split() if word]
    for word in list(words):
        if word.rstrip(".") in _POWER_WORDS and len(words) > 1:
            power = _POWER_WORDS[word.rstrip(".")]
            words.remove(word)
    known = _known(" ".join(words))
    if known:
        return known, power
    names = [name for name in map(_singular, words) if name not in _GENERIC]
    return (Unit(((" ".join(names), 1),), Fraction(1)) if names else NO_UNIT), power


def _known(text: str) -> Unit | None:
    text = text.strip(" .")
    return _KNOWN.get(text) or _KNOWN.get(_singular(text)) or _KNOWN.get(text.replace(" ", ""))


def _singular(word: str) -> str:
    word = word.strip(".,;:()'\"")
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


def is_measure(unit: Unit) -> bool:
    """True for a unit of the tables, and for no unit; False for a word that is its own dimension, such as "apple"."""
    return all(what in _TABLE for what, _ in unit.dimensions)


def compatible(answer: Unit, gold: Unit) -> bool:
    """True if two units measure the same thing. Words that are not units may differ in detail: 3 (red) apples."""
    if answer.dimensions == gold.dimensions:
        return True
    if len(answer.dimensions) == len(gold.dimensions) == 1:
        (left, left_power), (right, right_power) = answer.dimensions[0], gold.dimensions[0]
        if left_power == right_power and left not in _TABLE and right not in _TABLE:
            left_words, right_words = set(left.split()), set(right.split())
            return left_words <= right_words or right_words <= left_words
        return {left, right} == {"angle", "temperature"}
    return False
