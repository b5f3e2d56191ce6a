r"""Sets of real numbers: unions, intervals and inequalities as pieces of the line. ``|x| < 2`` is ``(-2, 2)``."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from sympy import Rational

from pipeline.verifier.compare.equality import DIGITS
from pipeline.verifier.compare.expressions import Unknown, to_sympy
from pipeline.verifier.reading.tree import (
    INFINITY,
    MINUS_INFINITY,
    REALS,
    Node,
    Same,
    has_variable,
    items_of,
    name_and_value,
    name_of,
    reversed_relation,
    same_name,
)


class Piece(NamedTuple):
    """An interval; a point when both ends are the same."""

    low: Node
    has_low: bool
    """True if the end belongs to the piece."""
    high: Node
    has_high: bool


_LINE = Piece(MINUS_INFINITY, False, INFINITY, False)


def is_real_set(node: Node) -> bool:
    """True if it can only be a set: a union, a half-open or unbounded interval, an inequality in one variable."""
    if node.head in ("union", "intersection", "setminus", "set_of") or node == REALS:
        return True
    if node.head == "group" and len(node.args) == 4:
        opening, closing, *ends = node.args
        return opening + closing in ("[)", "(]") or (opening in "([" and any(map(_is_infinite, ends)))
    if node.head == "list":
        return all(item.head == "relation" and is_real_set(item) for item in items_of(node))
    return node.head == "relation" and _inequality(node) is not None


def same_real_set(answer: Node, gold: Node, leaf: Same) -> bool | None:
    """True if two sets have the same pieces; None if the pieces of one cannot be worked out."""
    answer_name, gold_name = _subject(answer), _subject(gold)
    if answer_name and gold_name and not same_name(answer_name, gold_name):
        return False
    try:
        left, right = _pieces(answer), _pieces(gold)
    except Unknown:
        return None
    return len(left) == len(right) and all(_same_piece(*pair, leaf) for pair in zip(left, right, strict=True))


def _subject(node: Node) -> str:
    """``x`` in ``1 < x < 3``, ``|x| > 2`` and ``x < 1 or x > 3``; empty if no variable is named."""
    if node.head == "list":
        return next(filter(None, map(_subject, items_of(node))), "")
    if node.head != "relation":
        return ""
    operands = [each.args[1] if each.head == "call" else each for each in node.args[1:]]
    return next(filter(None, map(name_of, operands)), "")


def _same_piece(answer: Piece, gold: Piece, leaf: Same) -> bool:
    if (answer.has_low, answer.has_high) != (gold.has_low, gold.has_high):
        return False
    return _same_end(answer.low, gold.low, leaf) and _same_end(answer.high, gold.high, leaf)


def _same_end(answer: Node, gold: Node, leaf: Same) -> bool:
    return answer == gold or (not _is_infinite(answer) and not _is_infinite(gold) and leaf(answer, gold))


def _is_infinite(node: Node) -> bool:
    return node in (INFINITY, MINUS_INFINITY)


# Trees to pieces ---------------------------------------------------------------------------------------


def _pieces(node: Node) -> list[Piece]:
    """Disjoint pieces from left to right.

    Raises:
        Unknown: it is not a set of reals, or its ends cannot be put in order.
    """
    _, node = name_and_value(node)
    if node == REALS:
        return [_LINE]
    match node.head:
        case "set_of":
            return _pieces(node.args[0])
        case "union":
            return _merged([*_pieces(node.args[0]), *_pieces(node.args[1])])
        case "setminus":
            return _without(_pieces(node.args[0]), _pieces(node.args[1]))
        case "intersection":
            return _intersection(_pieces(node.args[0]), _pieces(node.args[1]))
        case "group" if node.args[0] == "{":
            return _merged([Piece(item, True, item, True) for item in items_of(node)])
        case "group" if len(node.args) == 4:
            return [_interval(*node.args)]
        case "relation" if pieces := _inequality(node):
            return pieces
        case "list":
            return _combined(node.args[0], [_pieces(item) for item in items_of(node)])
    raise Unknown


def _interval(opening: str, closing: str, low: Node, high: Node) -> Piece:
    if _place(low) > _place(high):
        raise Unknown
    return Piece(low, opening == "[", high, closing == "]")


def _combined(separators: Sequence[str], parts: list[list[Piece]]) -> list[Piece]:
    """``x > 1, x < 3`` means both. ``x < 1, x > 3`` means either, since both cannot hold; so does an "or"."""
    if "or" not in separators:
        both = parts[0]
        for part in parts[1:]:
            both = _intersection(both, part)
        if both:
            return both
    return _merged([piece for part in parts for piece in part])


def _inequality(node: Node) -> list[Piece] | None:
    r"""``x < 3``, ``3 > x``, ``1 \le x < 5``, ``|x| > 2`` and ``x \ne 2`` as pieces; None for other relations."""
    operators, *operands = node.args
    if not set(operators) <= {"<", "<=", ">", ">=", "!="}:
        return None
    if operators[0] in (">", ">=") or (operators == ("!=",) and not name_of(operands[0])):
        operators, *operands = reversed_relation(node).args
    is_unequal = operators == ("!=",)
    if not is_unequal and not set(operators) <= {"<", "<="}:
        return None
    if not is_unequal and (pieces := _absolute_bounds(operators, operands)):
        return pieces
    named = [index for index, operand in enumerate(operands) if name_of(operand)]
    if len(named) != 1 or any(has_variable(operand) for index, operand in enumerate(operands) if index != named[0]):
        return None
    if is_unequal:
        point = operands[1]
        return [Piece(MINUS_INFINITY, False, point, False), Piece(point, False, INFINITY, False)]
    return _bounds(operators, operands, named[0])


def _bounds(operators: Sequence[str], operands: Sequence[Node], place: int) -> list[Piece] | None:
    """``x <= 3``, ``2 < x`` and ``2 < x < 3`` as pieces. The name is at ``place``; operators are ``<`` and ``<=``."""
    if len(operands) == 2:
        is_closed = operators[0] == "<="
        if place == 0:
            return [Piece(MINUS_INFINITY, False, operands[1], is_closed)]
        return [Piece(operands[0], is_closed, INFINITY, False)]
    if len(operands) == 3 and place == 1:
        low, _, high = operands
        has_low, has_high = (operator == "<=" for operator in operators)
        return [Piece(low, has_low and not _is_infinite(low), high, has_high and not _is_infinite(high))]
    return None


def _absolute_bounds(operators: Sequence[str], operands: Sequence[Node]) -> list[Piece] | None:
    """``|x| < 3``, ``|x| > 3`` and ``2 < |x| < 3`` as pieces; operators are ``<`` and ``<=``."""
    places = [index for index, each in enumerate(operands) if each.head == "call" and each.args[0] == "abs"]
    if len(places) != 1 or not name_of(operands[places[0]].args[1]):
        return None
    at = places[0]
    high, has_high = (operands[at + 1], operators[at] == "<=") if at + 1 < len(operands) else (INFINITY, False)
    if at == 0:
        return [Piece(Node("neg", (high,)), has_high, high, has_high)]
    low, has_low = operands[at - 1], operators[at - 1] == "<="
    return [Piece(Node("neg", (high,)), has_high, Node("neg", (low,)), has_low), Piece(low, has_low, high, has_high)]


# Arithmetic of pieces ----------------------------------------------------------------------------------


def _place(end: Node) -> Any:
    """The position of an end, as a value that can be compared with others."""
    expression = to_sympy(end)
    if isinstance(expression, Rational) or _is_infinite(end):
        return expression
    value = expression.evalf(DIGITS) if not expression.free_symbols else None
    if value is None or not value.is_Float:
        raise Unknown
    return value


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Sorted, and joined where they touch or overlap."""
    merged: list[Piece] = []
    for piece in sorted(pieces, key=lambda each: (_place(each.low), not each.has_low)):
        if merged and _touch(merged[-1], piece):
            merged[-1] = _joined(merged[-1], piece)
        else:
            merged.append(piece)
    return merged


def _touch(left: Piece, right: Piece) -> bool:
    """True if nothing lies between two pieces; ``left`` begins first."""
    end, start = _place(left.high), _place(right.low)
    return start < end or (start == end and (left.has_high or right.has_low))


def _joined(left: Piece, right: Piece) -> Piece:
    left_end, right_end = _place(left.high), _place(right.high)
    if right_end > left_end:
        return left._replace(high=right.high, has_high=right.has_high)
    return left._replace(has_high=left.has_high or (right.has_high and right_end == left_end))


def _intersection(left: list[Piece], right: list[Piece]) -> list[Piece]:
    overlaps = []
    for a, b in itertools.product(left, right):
        low, has_low = max((a[:2], b[:2]), key=lambda end: (_place(end[0]), not end[1]))
        high, has_high = min((a[2:], b[2:]), key=lambda end: (_place(end[0]), end[1]))
        start, end = _place(low), _place(high)
        if start < end or (start == end and has_low and has_high):
            overlaps.append(Piece(low, has_low, high, has_high))
    return _merged(overlaps)


def _without(left: list[Piece], right: list[Piece]) -> list[Piece]:
    rest = left
    for low, has_low, high, has_high in right:
        outside = []
        if low != MINUS_INFINITY:
            outside.append(Piece(MINUS_INFINITY, False, low, not has_low))
        if high != INFINITY:
            outside.append(Piece(high, not has_high, INFINITY, False))
        rest = _intersection(rest, outside)
    return rest
