"""Expressions in statements, read with the verifier's reader and bounded so that no later step takes long."""

import re
import unicodedata
from collections.abc import Iterator
from decimal import Context, Inexact
from fractions import Fraction

from pipeline.verifier.normalize.spelling import clean
from pipeline.verifier.reading.parser import ReadError, read
from pipeline.verifier.reading.tree import Node, nodes_of

_MAX_CHARS = 200
_MAX_NODES = 100
_BOUND = 10**60
"""Of numerators and denominators, stated or computed."""
_MAX_EXPONENT = 64
_LONG_NUMBER = re.compile(r"[0-9]{31}|[eE][-+]?[0-9]")
ZERO_AND_ONE = (Fraction(0), Fraction(1))

_SIGNS = str.maketrans(
    dict.fromkeys("\u00d7\u2715\u2716\u00b7\u22c5\u2219", "*")  # times, dot
    | dict.fromkeys("\u00f7\u2215", "/")
    | dict.fromkeys("\u2212\u2013\uff0d", "-")
)
_SUPERSCRIPTS = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")

_INNERMOST = re.compile(r"[({\[][^(){}\[\]]*[)}\]]")
_OPERAND = r"(?:[0-9.]++|[a-zA-Z]|@)"
_SLASH_AND_PRODUCT = re.compile(
    rf"(?:/|\\div)\s*[-+]?\s*(?:\\|{_OPERAND}(?:\s*(?:\^|\*\*)\s*-?{_OPERAND})?"
    r"\s*(?:[0-9a-zA-Z@]|\\(?!(?:cdot|times|div|ast|bullet)\b)))"
)
_MIXED_NUMBER_IN_PRODUCT = re.compile(
    r"(?:[*/]|\\(?:cdot|times|div|ast|bullet)(?![a-zA-Z]))\s*[-+]?\s*[0-9.]++\s*(?:[0-9]|\\frac)"
    r"|(?<![@^])@\s*(?:[0-9]|\\frac)"
)
_MODULO = re.compile(r"\s*(?:[0-9]+|@)\s*\\?(?:b?mod|modulo)\s*(?:[0-9]+|@)\s*")


class UnworkableError(ValueError):
    """A tree with something else in it than what is computed, or with a result beyond the bounds."""


def with_plain_signs(text: str) -> str:
    """The text with ``*``, ``/``, ``-`` and ``^{2}`` for the signs of Unicode. Digits of other scripts stay."""
    text = text.translate(_SIGNS)
    return _SUPERSCRIPTS.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0])}}}", text)


def read_bounded(text: str) -> Node | None:
    """The tree of an expression or equation.

    None: unreadable, ambiguous, or over the bounds on characters, nodes and digits.
    """
    if len(text) > _MAX_CHARS or not text.isascii() or _LONG_NUMBER.search(text):
        return None
    tidy = clean(text)
    if any(map(_is_ambiguous, _levels(tidy))):
        return None
    try:
        node = read(tidy)
    except ReadError:
        return None
    return node if sum(1 for _ in nodes_of(node)) <= _MAX_NODES else None


def _levels(text: str) -> Iterator[str]:
    """Yield the text in each pair of brackets, then the text outside them all, with inner pairs replaced by ``@``."""
    while match := _INNERMOST.search(text):
        yield match[0][1:-1]
        text = f"{text[: match.start()]}@{text[match.end() :]}"
    yield text


def _is_ambiguous(level: str) -> bool:
    """True for ``12/2x``, for ``6 * 8 1/3``, and for ``mod`` beside another sign: ``5 + 7 mod 4``, ``-7 mod 3``."""
    if "mod" in level and not _MODULO.fullmatch(level):
        return True
    return bool(_SLASH_AND_PRODUCT.search(level) or _MIXED_NUMBER_IN_PRODUCT.search(level))


def numbers_of(tree: Node) -> list[Fraction]:
    """The numbers in an expression, without signs."""
    return [node.args[0] for node in nodes_of(tree) if node.head == "number"]


# Values ------------------------------------------------------------------------------------------------


def bounded(value: Fraction) -> Fraction:
    """The value itself.

    Raises:
        UnworkableError: its numerator or denominator is too large.
    """
    if max(abs(value.numerator), value.denominator) >= _BOUND:
        raise UnworkableError("too large")
    return value


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """A power of a bounded number.

    Raises:
        UnworkableError: the exponent is no whole number from -64 to 64, 0 is raised to one below 1, or the result is
            too large.
    """
    if exponent.denominator > 1 or abs(exponent) > _MAX_EXPONENT or (base == 0 and exponent < 1):
        raise UnworkableError("exponent")
    return bounded(base ** int(exponent))


def decimal(value: Fraction) -> str:
    """``3.5``; ``1/3`` where the decimals do not end."""
    if value.denominator == 1:
        return str(value)
    context = Context(prec=200, traps=[Inexact])
    try:
        quotient = context.divide(context.create_decimal(value.numerator), context.create_decimal(value.denominator))
    except Inexact:
        return str(value)
    return f"{quotient:f}"


# Keys --------------------------------------------------------------------------------------------------


def canonical(tree: Node, unknown: str | None = None) -> str:
    """Equal for trees that differ only in the order of terms, factors and sides, and in the name of the unknown."""
    match tree.head, tree.args:
        case "number", (value, _):
            return str(value)
        case "symbol", (name,):
            return "unknown" if name == unknown else str(name)
        case "neg", (Node("number", (value, _)),):
            return str(-value)
        case ("add" | "mul", _):
            parts = sorted(canonical(part, unknown) for part in _parts(tree, tree.head))
        case "relation", (_, *sides):
            parts = sorted(canonical(side, unknown) for side in sides)
        case _, args:
            parts = [canonical(arg, unknown) if isinstance(arg, Node) else str(arg) for arg in args]
    return f"{tree.head}({', '.join(parts)})"


def _parts(node: Node, head: str) -> list[Node]:
    """The terms of a sum or the factors of a product, brackets removed."""
    return [part for arg in node.args for part in _parts(arg, head)] if node.head == head else [node]
