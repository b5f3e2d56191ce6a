"""Equality of two sympy expressions: exact for rationals, else to many digits.

Expressions with variables are equal when they agree to 30 digits at fixed points. That is quicker than simplifying
their difference, and more reliable. With roots, fractional powers or logarithms of variables, only points count where
all of them are real: ``\\sqrt{1/k}`` is ``1/\\sqrt k``, and ``\\sqrt{x^2}`` is not ``x``.
"""

import itertools
from collections.abc import Iterator

import sympy
from sympy import Expr, Integer, Rational, Symbol

Values = Iterator[tuple[Expr | None, Expr | None]]
"""Of the left and the right expression, at one point after another."""
DIGITS = 60
_AGREE = 40
"""Numbers are evaluated to ``DIGITS`` digits, and are equal when ``_AGREE`` of them agree."""
_MAX_DIGITS = 3000
_POINT_DIGITS = 50
_POINT_AGREE = 30
_RATIO_AGREE = 20
_MAX_VARIABLES = 12
_STEPS = (sympy.Max, sympy.Min, sympy.floor, sympy.ceiling)
_PIECEWISE = (sympy.Abs, sympy.sign, *_STEPS)
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


def equal(left: Expr, right: Expr) -> bool:
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
        return bool(difference == 0)
    if not _agree(left.evalf(DIGITS), right.evalf(DIGITS), _AGREE):
        return False
    digits = _digits_to_tell(left, right)
    return digits == DIGITS or _agree(left.evalf(digits), right.evalf(digits), digits - 20)


def near(answer: Expr, gold: Expr, relative_tolerance: Rational) -> bool:
    """True if two real numbers, neither an integer, differ by at most the tolerance."""
    if answer.free_symbols or gold.free_symbols or answer.is_Integer or gold.is_Integer:
        return False
    left, right = answer.evalf(DIGITS), gold.evalf(DIGITS)
    if not (left.is_Float and right.is_Float):
        return False
    return bool(abs(left - right) <= relative_tolerance * abs(right))


def constant_ratio(left: Expr, right: Expr) -> Expr | None:
    """``c`` when left is ``c`` times right wherever both have a value. None if not, or c is 0, or variables differ."""
    left = _with_names_of(left, right)
    if left.free_symbols != right.free_symbols or not right.free_symbols:
        return None
    values = _values(left, right, right.free_symbols)
    pairs = [(above, below) for above, below in values if above is not None and below is not None]
    ratios = [(above / below).evalf(_POINT_DIGITS) for above, below in pairs if not below.is_zero]
    if len(ratios) < 2 or ratios[0].is_zero or not all(_agree(ratio, ratios[0], _RATIO_AGREE) for ratio in ratios):
        return None
    return ratios[0]


# Digits ------------------------------------------------------------------------------------------------


def _digits_to_tell(left: Expr, right: Expr) -> int:
    """More for larger integers: the square root of 10^100 + 1 agrees with 10^50 to a hundred digits."""
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


# Points ------------------------------------------------------------------------------------------------


def _equal_at_points(left: Expr, right: Expr, symbols: set[Symbol]) -> bool:
    """Equal wherever both have a value, at two points at least."""
    num_agreed = 0
    for left_value, right_value in _values(left, right, symbols):
        if left_value is None or right_value is None or not _agree(left_value, right_value, _POINT_AGREE):
            return False
        num_agreed += 1
    return num_agreed >= 2


def _values(left: Expr, right: Expr, symbols: set[Symbol]) -> Values:
    """Both values at the points where both have one; where both are real, if that leaves two points."""
    guarded = _roots_and_logarithms(left), _roots_and_logarithms(right)
    if any(guarded) and not (left.has(*_STEPS) or right.has(*_STEPS)):  # steps agree at many real points
        real = _real_values(left, right, guarded, symbols)
        first = list(itertools.islice(real, 2))
        if len(first) == 2:
            return itertools.chain(first, real)
    points = _points(symbols)
    if left.has(*_PIECEWISE) or right.has(*_PIECEWISE):  # |x + 1| is x + 1 near 0
        points += _scaled(points, 1000, -1000)
    values = ((_at(left, point), _at(right, point)) for point in points)
    return (pair for pair in values if None not in pair)


def _real_values(left: Expr, right: Expr, guarded: tuple[list[Expr], list[Expr]], symbols: set[Symbol]) -> Values:
    """Both values where both are real. With an absolute value in one, also where the other is not, as None.

    So ``\\ln |x|`` is not ``\\ln x``, but ``\\ln x^2`` is ``2 \\ln x``.
    """
    has_one_absolute = left.has(sympy.Abs) != right.has(sympy.Abs)
    for point in _real_points(symbols):
        pair = _real_at(left, guarded[0], point), _real_at(right, guarded[1], point)
        if pair.count(None) < (2 if has_one_absolute else 1):
            yield pair


def _roots_and_logarithms(expression: Expr) -> list[Expr]:
    """Radicands and arguments of logarithms: none may be negative if the expression is to be real."""
    powers = [power.base for power in expression.atoms(sympy.Pow) if power.exp.is_Rational and not power.exp.is_Integer]
    inside = [*powers, *(logarithm.args[0] for logarithm in expression.atoms(sympy.log))]
    return [each for each in inside if each.free_symbols]


def _real_at(expression: Expr, guarded: list[Expr], point: dict[Symbol, Expr]) -> Expr | None:
    if not all(_is_positive_at(each, point) for each in guarded):
        return None
    value = _at(expression, point)
    return value if value is not None and value.is_real else None


def _is_positive_at(expression: Expr, point: dict[Symbol, Expr]) -> bool:
    value = _at(expression, point)
    return value is not None and bool(value.is_positive)


def _at(expression: Expr, point: dict[Symbol, Expr]) -> Expr | None:
    value = expression.xreplace(point).evalf(_POINT_DIGITS)
    return value if _is_number(value) else None


def _points(symbols: set[Symbol]) -> list[dict[Symbol, Expr]]:
    """Fixed points that no answer singles out: small primes over primes, of both signs; the last point is integers."""
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


def _scaled(points: list[dict[Symbol, Expr]], *scales: int) -> list[dict[Symbol, Expr]]:
    return [{name: scale * value for name, value in point.items()} for point in points for scale in scales]


def _real_points(symbols: set[Symbol]) -> list[dict[Symbol, Expr]]:
    """More points, for roots are real on a part of the line only: larger ones, or with one negative or large name."""
    points = _points(symbols)
    first, second = points[:2]
    points += _scaled([first], 10, 1000, -1, -10)
    if len(symbols) > 1:
        changes = [(first, -1), (first, 100), (second, 100)]
        points += [point | {name: scale * point[name]} for name in first for point, scale in changes]
    return points


def _with_names_of(answer: Expr, gold: Expr) -> Expr:
    """The answer in the gold's letters: case does not matter unless two variables share a letter."""
    if answer.free_symbols == gold.free_symbols:
        return answer
    by_name = {symbol.name.lower(): symbol for symbol in gold.free_symbols}
    if len(by_name) < len(gold.free_symbols):
        return answer
    return answer.xreplace({s: by_name[s.name.lower()] for s in answer.free_symbols if s.name.lower() in by_name})
