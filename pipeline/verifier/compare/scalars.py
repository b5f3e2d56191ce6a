"""Compares two scalars, with their units: exactly, or with the tolerance of decimals."""

import sympy
from sympy import Expr

from pipeline.verifier.compare import equality
from pipeline.verifier.compare.expressions import Unknown, rational, to_sympy
from pipeline.verifier.normalize.languages import take_scale
from pipeline.verifier.normalize.quantity import MIN_DIGITS, RELATIVE_TOLERANCE
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.normalize.units import NO_UNIT, PERCENT, Unit, compatible, read_unit
from pipeline.verifier.reading.tree import Node, number

_DEGREE = read_unit("degree")
_UNDEFINED = (sympy.zoo, sympy.nan)
_TOLERANCE = rational(RELATIVE_TOLERANCE)


def exact(answer: Node, gold: Node) -> bool:
    return any(equality.equal(*pair) for pair in _pairs(answer, gold))


def close(answer: Node, gold: Node) -> bool:
    """Equal, or within 1e-5 when one is a decimal with 4 places or more and neither is an integer."""
    pairs = _pairs(answer, gold)
    if any(equality.equal(*pair) for pair in pairs):
        return True
    if max(_num_decimals(answer), _num_decimals(gold)) < MIN_DIGITS:
        return False
    return any(equality.near(*pair, _TOLERANCE) for pair in pairs)


def relation_ratio(answer: Node, gold: Node) -> Expr | None:
    """``c`` when left minus right of one relation is ``c`` times that of the other, everywhere; None when it is not."""
    try:
        left, right = (to_sympy(node.args[1]) - to_sympy(node.args[2]) for node in (answer, gold))
    except (Unknown, TypeError):
        return None
    return equality.constant_ratio(left, right)


# Units -------------------------------------------------------------------------------------------------


def _pairs(answer: Node, gold: Node) -> list[tuple[Expr, Expr]]:
    """Pairs of values one of which must be equal: none when units differ, two for a percentage.

    The rules are those of ``values_to_compare``.
    """
    if answer.head == "based" and gold.head != "based":
        answer = number(answer.args[2])
    if gold.head == "based" and answer.head == "number" and str(answer.args[0]) == gold.args[0]:
        return [(sympy.S.One, sympy.S.One)]  # 1011 for 1011_2: the question named the base
    try:
        (left_node, left_unit), (right_node, right_unit) = _split_unit(answer), _split_unit(gold)
        left, right = to_sympy(left_node), to_sympy(right_node)
    except (Unknown, TypeError):
        return []
    if left.has(*_UNDEFINED) or right.has(*_UNDEFINED):
        return []
    if PERCENT in (left_unit, right_unit) and left_unit != right_unit:
        if NO_UNIT not in (left_unit, right_unit):
            return []
        return [(left, right), (left / 100, right) if left_unit == PERCENT else (left, right / 100)]
    if not left_unit.dimensions or not right_unit.dimensions:
        return [(left, right), *_in_radians(left, left_unit, right, right_unit)]
    if not compatible(left_unit, right_unit):
        return []
    return [(left * rational(left_unit.factor), right * rational(right_unit.factor))]


def _in_radians(left: Expr, left_unit: Unit, right: Expr, right_unit: Unit) -> list[tuple[Expr, Expr]]:
    """Degrees on one side and a multiple of pi on the other."""
    if left.has(sympy.pi) and right_unit == _DEGREE:
        return [(left, right * sympy.pi / 180)]
    if right.has(sympy.pi) and left_unit == _DEGREE:
        return [(left * sympy.pi / 180, right)]
    return []


def _split_unit(node: Node) -> tuple[Node, Unit]:
    if node.head != "unit":
        return node, NO_UNIT
    inner, text = node.args
    scale, rest = take_scale(text.strip(f" {TEXT_OPEN}{TEXT_CLOSE}").lower())
    if scale > 1:
        inner = Node("mul", (inner, number(scale)))
    try:
        unit = read_unit(rest if scale > 1 else text)
    except ValueError:
        raise Unknown from None
    return inner, unit


def _num_decimals(node: Node) -> int:
    """Digits after the point when the scalar is a decimal number, else 0."""
    while node.head in ("unit", "neg"):
        node = node.args[0]
    return int(node.args[1]) if node.head == "number" else 0
