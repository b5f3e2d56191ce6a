"""Whether two scalars are equal: exactly, or with the tolerance of decimals; with their units, as sympy expressions.

Expressions with variables are equal when they agree to 30 digits at fixed points, which is quicker and surer than to
simplify their difference.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
import sympy.assumptions.wrapper
import sympy.sets.setexpr  # both are loaded late otherwise, when a worker may compile nothing any more
from sympy import Expr, Integer, Rational, Symbol

from pipeline.verifier.normalize.quantity import MIN_DIGITS, RELATIVE_TOLERANCE
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.normalize.units import NO_UNIT, PERCENT, Unit, compatible, read_unit, take_scale
from pipeline.verifier.reading.tree import Node, number

MAX_BITS = 200_000
"""Integers above stay powers and factorials that nobody multiplies out."""
DIGITS = 60
_AGREE = 40
"""Numbers are worked out to ``DIGITS`` digits, and equal when ``_AGREE`` of them agree."""
_MAX_DIGITS = 3000
_POINT_DIGITS = 50
_POINT_AGREE = 30
_RATIO_AGREE = 20
_MAX_VARIABLES = 12
_MAX_FACTORIAL = 5000
_MAX_EXPONENT = 10_000
_DEGREE = read_unit("degree")
_UNDEFINED = (sympy.zoo, sympy.nan)
_PIECEWISE = (sympy.Abs, sympy.sign, sympy.Max, sympy.Min, sympy.floor, sympy.ceiling)
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


class Unknown(Exception):
    """Not something that can be turned into a sympy expression, or into a set of reals."""


def exact(answer: Node, gold: Node) -> bool:
    return any(_equal(*pair) for pair in _pairs(answer, gold))


def close(answer: Node, gold: Node) -> bool:
    """Equal, or within 1e-5 when a decimal of 4 places or more meets a value that is no integer."""
    pairs = _pairs(answer, gold)
    if any(_equal(*pair) for pair in pairs):
        return True
    if max(_num_decimals(answer), _num_decimals(gold)) < MIN_DIGITS:
        return False
    return any(_near(*pair) for pair in pairs)


def constant_ratio(answer: Node, gold: Node) -> Expr | None:
    """``c`` when left minus right of one relation is ``c`` times that of the other, everywhere; None when it is not."""
    try:
        left, right = (to_sympy(node.args[1]) - to_sympy(node.args[2]) for node in (answer, gold))
    except (Unknown, TypeError):
        return None
    left = _with_names_of(left, right)
    if left.free_symbols != right.free_symbols or not right.free_symbols:
        return None
    values = [(_at(left, point), _at(right, point)) for point in _points(right.free_symbols)]
    ratios = [above / below for above, below in values if above is not None and below is not None and not below.is_zero]
    if len(ratios) < 2 or ratios[0].is_zero or not all(_agree(ratio, ratios[0], _RATIO_AGREE) for ratio in ratios):
        return None
    return ratios[0]


# Units -------------------------------------------------------------------------------------------------


def _pairs(answer: Node, gold: Node) -> list[tuple[Expr, Expr]]:
    """Pairs of which one must be equal: none when units differ, two for a percentage. As ``values_to_compare``."""
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
    return [(left * _rational(left_unit.factor), right * _rational(right_unit.factor))]


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
    """Digits after the point, when the scalar is one decimal number."""
    while node.head in ("unit", "neg"):
        node = node.args[0]
    return node.args[1] if node.head == "number" else 0


def _rational(value: Fraction) -> Rational:
    return Rational(value.numerator, value.denominator)


# Equality ----------------------------------------------------------------------------------------------


def _near(answer: Expr, gold: Expr) -> bool:
    if answer.free_symbols or gold.free_symbols or answer.is_Integer or gold.is_Integer:
        return False
    left, right = answer.evalf(DIGITS), gold.evalf(DIGITS)
    if not (left.is_Float and right.is_Float):
        return False
    return bool(abs(left - right) <= _rational(RELATIVE_TOLERANCE) * abs(right))


def _equal(left: Expr, right: Expr) -> bool:
    """Whether two expressions are equal. Exact for rationals; else by digits, or at fixed points."""
    if left == right:
        return True
    if isinstance(left, Rational) and isinstance(right, Rational):
        return False
    left = _with_names_of(left, right)
    if left == right:
        return True
    if symbols := left.free_symbols | right.free_symbols:
        return len(symbols) <= _MAX_VARIABLES and _equal_at_points(left, right, symbols)
    if left.is_infinite or right.is_infinite:
        return False
    difference = sympy.expand(left - right) if _is_small(left) and _is_small(right) else left - right
    if difference.is_Rational:
        return difference == 0
    if not _agree(left.evalf(DIGITS), right.evalf(DIGITS), _AGREE):
        return False
    digits = _digits_to_tell(left, right)
    return digits == DIGITS or _agree(left.evalf(digits), right.evalf(digits), digits - 20)


def _digits_to_tell(left: Expr, right: Expr) -> int:
    """More digits for larger integers: the square root of 10^100 + 1 is 10^50 to a hundred digits."""
    sizes = [max(n.p.bit_length(), n.q.bit_length()) for n in left.atoms(Rational) | right.atoms(Rational)]
    return min(_MAX_DIGITS, DIGITS + 2 * (max(sizes, default=0) * 3 // 10) // 10 * 10)


def _is_small(expression: Expr) -> bool:
    powers = expression.atoms(sympy.Pow)
    has_large_power = any(power.exp.is_Integer and abs(power.exp) > 50 for power in powers)
    return not has_large_power and sympy.count_ops(expression) < 200


def _agree(left: Expr, right: Expr, num_digits: int) -> bool:
    if not (_is_number(left) and _is_number(right)):
        return False
    size = max(abs(left), abs(right))
    return bool(abs(left - right) <= size * Rational(1, 10**num_digits))


def _is_number(value: Expr) -> bool:
    return bool(value.is_number and value.is_finite is not False and not value.has(sympy.nan, sympy.zoo, sympy.oo))


def _equal_at_points(left: Expr, right: Expr, symbols: set[Symbol]) -> bool:
    """Equal wherever both have a value, and at two points at least."""
    num_agreed = 0
    points = _points(symbols)
    if left.has(*_PIECEWISE) or right.has(*_PIECEWISE):  # |x + 1| is x + 1 near 0
        points += [
            {name: scale * value for name, value in point.items()} for point in points for scale in (1000, -1000)
        ]
    for point in points:
        here, there = _at(left, point), _at(right, point)
        if here is None or there is None:
            continue
        if not _agree(here, there, _POINT_AGREE):
            return False
        num_agreed += 1
    return num_agreed >= 2


def _at(expression: Expr, point: dict[Symbol, Expr]) -> Expr | None:
    value = expression.xreplace(point).evalf(_POINT_DIGITS)
    return value if _is_number(value) else None


def _points(symbols: set[Symbol]) -> list[dict[Symbol, Expr]]:
    """Fixed places that no answer was made for: small primes over primes, of both signs; the last of integers."""
    names = sorted(symbols, key=str)
    points = []
    for shift, sign in enumerate((1, 1, -1, 1)):
        point = {}
        for index, name in enumerate(names):
            above = _PRIMES[(3 * index + 2 * shift) % 15] + 2 * index
            below = _PRIMES[(5 * index + shift + 4) % 15] * 2 + 1
            point[name] = sign * Rational(above, below)
        points.append(point)
    integer = {name: Integer(index + 3) for index, name in enumerate(names)}  # for factorials and (-1)^n
    return [*points, integer]


def _with_names_of(answer: Expr, gold: Expr) -> Expr:
    """Capital and small letters are the same when nothing else tells variables apart."""
    if answer.free_symbols == gold.free_symbols:
        return answer
    by_name = {symbol.name.lower(): symbol for symbol in gold.free_symbols}
    if len(by_name) < len(gold.free_symbols):
        return answer
    return answer.xreplace({s: by_name[s.name.lower()] for s in answer.free_symbols if s.name.lower() in by_name})


# Trees to sympy ----------------------------------------------------------------------------------------


def to_sympy(node: Node) -> Expr:
    """The sympy expression of a scalar.

    Raises:
        Unknown: it is no scalar.
    """
    match node.head:
        case "number":
            return _rational(node.args[0])
        case "based":
            return _rational(node.args[2])
        case "symbol":
            return _SYMBOLS.get(node.args[0]) or Symbol(node.args[0])
        case "neg":
            return -to_sympy(node.args[0])
        case "add":
            return sympy.Add(*map(to_sympy, _flat(node)))
        case "mul":
            return sympy.Mul(*map(to_sympy, _flat(node)))
        case "div":
            above, below = map(to_sympy, node.args)
            if below == 0:
                raise Unknown
            return above / below
        case "pow":
            return _power(*map(to_sympy, node.args))
        case "call":
            return _call(node.args[0], [to_sympy(arg) for arg in node.args[1:]])
        case "unit" if node.args[1] == "%":
            return to_sympy(node.args[0]) / 100
        case "unit" if "circ" in node.args[1] or node.args[1].startswith("degree"):
            return to_sympy(node.args[0]) * sympy.pi / 180
        case _:
            raise Unknown


def _flat(node: Node) -> list[Node]:
    """Terms of a sum, or factors of a product, that was read from the left."""
    head, parts = node.head, []
    while node.head == head:
        node, right = node.args
        parts.append(right)
    return [node, *reversed(parts)]


def _power(base: Expr, exponent: Expr) -> Expr:
    if base == 0 and exponent.is_negative:
        raise Unknown
    return sympy.Pow(base, exponent, evaluate=not _is_huge_power(base, exponent))


def _is_huge_power(base: Expr, exponent: Expr) -> bool:
    """Whether the power is left as it is written, as to work it out could take for ever."""
    if isinstance(base, Rational) and isinstance(exponent, Integer):
        bits = max(base.p.bit_length(), base.q.bit_length())
        return abs(base) not in (0, 1) and bits * abs(int(exponent)) > MAX_BITS
    if not base.is_number:
        return False
    if isinstance(exponent, Rational):
        return bool(abs(exponent) > _MAX_EXPONENT)
    return bool(exponent.is_Pow and exponent.is_number)


def _root(radicand: Expr, index: Expr) -> Expr:
    if index == 0:
        raise Unknown
    if radicand.is_negative and index.is_Integer and index % 2 == 1:
        return -sympy.Pow(-radicand, 1 / index)  # the real root
    return sympy.Pow(radicand, 1 / index)


def _factorial(of: Expr) -> Expr:
    if of.is_Integer and of < 0:
        raise Unknown
    return sympy.factorial(of, evaluate=not (of.is_Integer and of > _MAX_FACTORIAL))


def _binomial(above: Expr, below: Expr) -> Expr:
    is_whole = above.is_Integer and below.is_Integer
    is_large = is_whole and min(abs(below), abs(above - below)) > _MAX_FACTORIAL
    return sympy.binomial(above, below, evaluate=not is_large)


def _log_to_base(of: Expr, base: Expr) -> Expr:
    if base in (0, 1):
        raise Unknown
    return sympy.log(of) / sympy.log(base)


def _mod(value: Expr, modulus: Expr) -> Expr:
    if modulus == 0:
        raise Unknown
    return sympy.Mod(value, modulus)


def _of_integers(function: Callable[..., int]) -> Callable[..., Expr]:
    def of(*arguments: Expr) -> Expr:
        if not all(argument.is_Integer for argument in arguments):
            raise Unknown
        return Integer(function(*arguments))

    return of


_SYMBOLS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infty": sympy.oo}
_OF_ONE: dict[str, Callable[..., Any]] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot, "arcsec": sympy.asec,
    "arccsc": sympy.acsc, "asin": sympy.asin, "acos": sympy.acos, "atan": sympy.atan, "sinh": sympy.sinh,
    "cosh": sympy.cosh, "tanh": sympy.tanh, "coth": sympy.coth, "arcsinh": sympy.asinh, "arccosh": sympy.acosh,
    "arctanh": sympy.atanh, "log": sympy.log, "ln": sympy.log, "lg": lambda x: sympy.log(x, 10), "exp": sympy.exp,
    "sqrt": sympy.sqrt, "cbrt": lambda x: sympy.real_root(x, 3), "factorial": _factorial, "abs": sympy.Abs,
    "floor": sympy.floor, "ceil": sympy.ceiling, "sgn": sympy.sign, "re": sympy.re, "im": sympy.im, "arg": sympy.arg,
}  # fmt: skip
_OF_TWO: dict[str, Callable[..., Any]] = {"root": _root, "binomial": _binomial, "log": _log_to_base, "mod": _mod}
_OF_MANY: dict[str, Callable[..., Any]] = {
    "max": sympy.Max,
    "min": sympy.Min,
    "gcd": _of_integers(sympy.igcd),
    "lcm": _of_integers(sympy.ilcm),
}


def _call(name: str, arguments: list[Expr]) -> Expr:
    function = None
    if len(arguments) == 1:
        function = _OF_ONE.get(name)
    elif len(arguments) == 2:
        function = _OF_TWO.get(name)
    if function is None and len(arguments) > 1:
        function = _OF_MANY.get(name)
    if function is None:
        raise Unknown
    return function(*arguments)
