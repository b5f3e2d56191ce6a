"""Expressions in statements, read with the verifier's reader and bounded so that no later step takes long."""

import re
from fractions import Fraction

from pipeline.verifier.normalize.spelling import clean
from pipeline.verifier.reading.parser import ReadError, read
from pipeline.verifier.reading.tree import Node, nodes_of

_MAX_CHARS = 200
_MAX_NODES = 100
_LONG_NUMBER = re.compile(r"[0-9]{7}|[eE][-+]?[0-9]")
ZERO_AND_ONE = (Fraction(0), Fraction(1))


def read_bounded(text: str) -> Node | None:
    """The tree of an expression or equation; None if it is unreadable or has too many characters, nodes or digits."""
    if len(text) > _MAX_CHARS or not text.isascii() or _LONG_NUMBER.search(text):
        return None
    try:
        node = read(clean(text))
    except ReadError:
        return None
    return node if sum(1 for _ in nodes_of(node)) <= _MAX_NODES else None


def numbers_of(tree: Node) -> list[Fraction]:
    """The numbers in an expression, without signs."""
    return [node.args[0] for node in nodes_of(tree) if node.head == "number"]
