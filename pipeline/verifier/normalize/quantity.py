"""Plain numbers with their units, compared exactly. Most GSM8K answers are decided here, without sympy.

Numbers are bounded before they are expanded. Everything here takes linear time.
"""

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from pipeline.verifier.normalize.languages import changes_next_number, ends_in_a_sign, take_scale
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.normalize.units import NO_UNIT, PERCENT, Unit, compatible, read_unit

MAX_CHARS = 1000
"""Longer texts are not read as plain numbers."""
RELATIVE_TOLERANCE = Fraction(1, 100_000)
"""Between an approximate decimal and an exact value."""
MIN_DIGITS = 4
"""A decimal counts as an approximation if it has this many digits after the point."""

_INT = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?![0-9])"  # 1,234,567 and 12,34,567
    r"|[1-9][0-9]{0,2}(?:[ '][0-9]{3})+(?![0-9])|[0-9]+)"
)
_TEXT = f"[{TEXT_OPEN}{TEXT_CLOSE} ]*"
_POWER_OF_TEN = (
    r"\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*(?P<power>[-+]?[0-9]{1,3})\s*\}|(?P<power1>[-+]?[0-9]{1,3}))"
)
_NUMBER = re.compile(
    # x = -$
    r"(?:(?P<name>[A-Za-z](?:_\{?\w+\}?)?|[a-z]\([a-z0-9]\))\s*=\s*)?"
    r"(?P<sign>(?:[-+\s]|minus |negative )*)(?P<currency>[$€£¥₹]?)\s*(?P<sign2>-?)\s*"
    # 1 1/2, 1\frac{1}{2}, 1\frac12
    rf"(?:(?:(?P<whole>{_INT})(?:\s+|\s*(?=\\)))?"
    rf"(?:(?P<above>{_INT})\s*/\s*(?P<below>{_INT})"
    rf"|\\frac\s*(?:\{{\s*(?P<top>-?{_INT})\s*\}}|(?P<top1>[0-9]))"
    rf"\s*(?:\{{\s*(?P<bottom>{_INT})\s*\}}|(?P<bottom1>[0-9])(?![0-9])))"
    # 1,234.5, 1.5e3, 1.5 \times 10^3
    rf"|(?P<decimal>{_INT}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exponent>[-+]?[0-9]{{1,3}})|{_POWER_OF_TEN})?)"
    # %, degrees, words, cm^2
    rf"(?P<unit>(?:\s*%|\s*\^?\s*\{{?\\circ\}}?|\s*\\degree)?{_TEXT}"
    rf"(?:[^\W\d_]|\s|[.'/$€£¥₹¢{TEXT_OPEN}{TEXT_CLOSE}()-]|\^\s*\{{?[23]\}}?(?![0-9]))*)"
)
_EUROPEAN = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]{1,3}(?:\.[0-9]{3})*|[0-9]+),(?P<decimals>[0-9]{1,2}|[0-9]{4,})")
_MIXED = re.compile(r"(-?[0-9]{1,9}) and (?=(?:[0-9]{1,9}/|\\frac))")
_SUMMED = re.compile(r"([^()]{1,60}) \(([^()]{1,200})\)")
_LEAD = re.compile(
    r"(?:(?:is|are|equals?|exactly|about|approximately|approx\.?|around|roughly|only|just|total(?: of)?|a total of"
    r"|there(?: are| is)?|it is|it's|=|\\approx|~|\\simeq|\\sim)(?![A-Za-z])\s*)+",
    re.IGNORECASE,
)
_WORDS_BEFORE = re.compile(r"(?:[^\W\d_]++[ ,:]*+|\s)++(?=[-+$€£¥₹]?\.?[0-9])")
"""Possessive: with backtracking, n letters take 2^n steps."""
_CHANGES_MEANING = re.compile(
    r"\b(?:not|no|never|less|more|fewer|greater|least|most|between|than|over|under|above|below|except|half|twice|double"
    r"|triple|square|cube|root|sqrt|third|quarter|by|times|plus|or|and|either|maybe|perhaps|mod|log|ln|sin|cos|tan|exp|to"
    r"|from|base|[a-z])\b",
    re.IGNORECASE,
)
_NOT_A_UNIT = re.compile(
    r"\b(?:or|and|not|plus|minus|times|over|sqrt|pi|sin|cos|tan|log|ln|exp|mod|of|squared|if|to|base|e|i|am|pm|a\.m|p\.m|"
    r"half|halves|third|quarter|factorial|remainder|r)\b"
)
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBER_WORDS = {word: value for value, word in enumerate(_ONES)}
_NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_PARTS = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
_LARGE_WORDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_COMPOUND_PART = re.compile(
    rf"(?:^|(?<=[\s,{TEXT_OPEN}{TEXT_CLOSE}]))(?:and{_TEXT})?"
    rf"([0-9][0-9,]*(?:\.[0-9]+)?){_TEXT}([A-Za-z]+)"
    rf"{_TEXT}(?:,{_TEXT})?(?:and\b{_TEXT})?"
)
_MAX_UNIT_CHARS = 60


class Quantity(NamedTuple):
    value: Fraction
    unit: Unit
    name: str
    """``x`` in ``x = 5``, or empty."""
    num_decimals: int
    """Digits written after the point."""


def read_quantity(text: str, *, prose: bool = False) -> Quantity | None:
    r"""A plain number: ``-1,234.50``, ``x = 5``, ``3/4``, ``1\frac{1}{2}``, ``50%``, ``$5``, ``3 eggs``, ``2e3 km/h``.

    Args:
        text: an answer as ``clean`` leaves it.
        prose: also read a number after words, such as "about 5" or "la respuesta es 5".
    """
    if len(text) > MAX_CHARS:
        return None
    match = _NUMBER.fullmatch(text) or (_NUMBER.fullmatch(without_lead(text)) if prose else None)
    if match is None:
        return _compound(text) or _in_words(text)
    scale, unit_text = take_scale(match["unit"].strip(f" {TEXT_OPEN}{TEXT_CLOSE}").lower())
    unit_text = unit_text if scale > 1 else match["unit"]
    if len(unit_text) > _MAX_UNIT_CHARS or _NOT_A_UNIT.search(unit_text.lower()):
        return None
    if (unit_text[:1].isalpha() and len(unit_text) == 1) or "..." in unit_text:
        return None  # 5m is a product, 0.333... is a repeating decimal
    try:
        unit = read_unit(unit_text)
    except ValueError:
        return None
    value = _value(match)
    if value is None:
        return None
    if match["currency"]:
        currency = read_unit(match["currency"])
        if unit is not NO_UNIT and not compatible(unit, currency):
            return None
        unit = currency
    negative = (match["sign"] + match["sign2"]).count("-") + len(re.findall("minus|negative", match["sign"]))
    _, _, decimals = (match["decimal"] or "").partition(".")
    return Quantity((-value if negative % 2 else value) * scale, unit, match["name"] or "", len(decimals))


def _value(match: re.Match[str]) -> Fraction | None:
    if decimal := match["decimal"]:
        exponent = int(match["exponent"] or match["power"] or match["power1"] or 0)
        return Fraction(_digits(decimal).removesuffix(".")) * Fraction(10) ** exponent
    above = match["above"] or match["top"] or match["top1"]
    below = match["below"] or match["bottom"] or match["bottom1"]
    denominator = int(_digits(below))
    if denominator == 0:
        return None
    return Fraction(int(_digits(above)), denominator) + int(_digits(match["whole"] or "0"))


def _digits(text: str) -> str:
    return text.translate({ord(","): None, ord(" "): None, ord("'"): None})


def without_lead(text: str) -> str:
    """The text without a leading "about" or "=", and without prose before a number if prose is all there is."""
    if lead := _LEAD.match(text):
        text = text[lead.end() :]
    if text.startswith(("negative ", "minus ")):
        return "-" + text.partition(" ")[2]
    words = _WORDS_BEFORE.match(text)
    if words and not (_CHANGES_MEANING.search(words[0]) or changes_next_number(words[0]) or ends_in_a_sign(words[0])):
        text = text[words.end() :]
    return text


def _compound(text: str) -> Quantity | None:
    """``2 hours and 30 minutes``, ``5 feet 3 inches``: units of one dimension, each smaller than the one before."""
    parts = _COMPOUND_PART.findall(text)
    if len(parts) < 2 or _COMPOUND_PART.sub("", text).strip(f" ,{TEXT_OPEN}{TEXT_CLOSE}"):
        return None
    try:
        units = [read_unit(TEXT_OPEN + unit + TEXT_CLOSE) for _, unit in parts]
    except ValueError:
        return None
    falling = all(a.factor > b.factor and a.dimensions == b.dimensions for a, b in pairwise(units))
    if not falling:
        return None
    numbers = [Fraction(number.replace(",", "")) for number, _ in parts]
    total = sum((number * unit.factor for number, unit in zip(numbers, units, strict=True)), start=Fraction(0))
    return Quantity(total, Unit(units[0].dimensions, Fraction(1)), "", 0)


def _in_words(text: str) -> Quantity | None:
    """``twenty-one``, ``three hundred and five``, ``five apples``."""
    if len(text) > 200 or not text[:1].isalpha():
        return None
    if text.startswith(("minus ", "negative ")):
        opposite = _in_words(text.partition(" ")[2])
        return opposite and opposite._replace(value=-opposite.value)
    words = text.replace(TEXT_OPEN, " ").replace(TEXT_CLOSE, " ").lower().replace("-", " ").split()
    total, group, used = 0, 0, 0
    for word in words:
        if word in _NUMBER_WORDS:
            group += _NUMBER_WORDS[word]
        elif word == "hundred" and used:
            group *= 100
        elif word in _LARGE_WORDS and used:
            total, group = total + group * _LARGE_WORDS[word], 0
        elif not (word == "and" and used):
            break
        used += 1
    rest = " ".join(words[used:])
    if used and rest.removesuffix("s") in _PARTS:
        return Quantity(Fraction(total + group, _PARTS[rest.removesuffix("s")]), NO_UNIT, "", 0)
    if not used or _NOT_A_UNIT.search(rest) or rest.startswith("quarters") or len(rest) > _MAX_UNIT_CHARS:
        return None
    if not all(word.isalpha() for word in words[used:]):
        return None
    try:
        return Quantity(Fraction(total + group), read_unit(TEXT_OPEN + rest + TEXT_CLOSE), "", 0)
    except ValueError:
        return None


def respelled_quantity(text: str) -> Quantity | None:
    """A plain number in a rarer spelling: ``3,14``, ``2 and 1/2``, or ``72 clips (48 in April and 24 in May)``."""
    if decimal := european_decimal(text):
        return read_quantity(decimal)
    if mixed := _MIXED.match(text):
        return read_quantity(f"{mixed[1]} {text[mixed.end() :]}")
    if summed := _SUMMED.fullmatch(text):
        total, parts = read_quantity(summed[1]), re.findall(r"[0-9]+(?:\.[0-9]+)?", summed[2])
        return total if total and len(parts) > 1 and sum(map(Fraction, parts)) == total.value else None
    return None


def european_decimal(text: str) -> str | None:
    """``3,14`` -> ``3.14`` and ``1.234,5`` -> ``1234.5``; None for other texts."""
    match = _EUROPEAN.fullmatch(text)
    return match and f"{match['sign']}{match['whole'].replace('.', '')}.{match['decimals']}"


def same_quantity(answer: Quantity, gold: Quantity) -> bool:
    """Exactly equal. A unit matters only if the gold answer has one.

    A missing unit is forgiven, a different one is not; units of one dimension are converted. ``50%`` is 50 and 0.5.
    """
    if answer.name and gold.name and answer.name.lower() != gold.name.lower():
        return False
    return any(value == reference for value, reference in values_to_compare(answer, gold))


def close_quantity(answer: Quantity, gold: Quantity) -> bool:
    """Equal, or one a decimal approximation of the other (see ``close_numbers``)."""
    if answer.name and gold.name and answer.name.lower() != gold.name.lower():
        return False
    pairs = values_to_compare(answer, gold)
    return any(close_numbers(*pair, answer.num_decimals, gold.num_decimals) for pair in pairs)


def close_numbers(answer: Fraction, gold: Fraction, answer_decimals: int, gold_decimals: int) -> bool:
    """Equal, or within 1e-5 if neither is an integer and one is a decimal with 4 places or more."""
    if answer == gold:
        return True
    if answer.denominator == 1 or gold.denominator == 1 or max(answer_decimals, gold_decimals) < MIN_DIGITS:
        return False
    return abs(answer - gold) <= RELATIVE_TOLERANCE * abs(gold)


def values_to_compare(answer: Quantity, gold: Quantity) -> list[tuple[Fraction, Fraction]]:
    """Pairs of values one of which must be equal; none if the units differ."""
    left, right = answer.value, gold.value
    if PERCENT in (answer.unit, gold.unit) and answer.unit != gold.unit:
        other = gold.unit if answer.unit == PERCENT else answer.unit
        if other is not NO_UNIT and other.dimensions:
            return []
        if answer.unit == PERCENT:
            return [(left / 100, right), *([(left, right)] if abs(right) >= 1 else [])]
        return [(left, right / 100), (left, right)]
    if not answer.unit.dimensions or not gold.unit.dimensions:
        return [(left, right)]
    if not compatible(answer.unit, gold.unit):
        return []
    return [(left * answer.unit.factor, right * gold.unit.factor)]
