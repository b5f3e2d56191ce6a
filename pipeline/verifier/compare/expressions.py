"""Turns the tree of a scalar into a sympy expression. Numbers too large to work out stay powers and factorials."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
import sympy.assumptions.wrapper
import sympy.sets.setexpr  # sympy would load both lazily, when a worker may no longer compile anything
from sympy import Expr, Integer, Rational, Symbol

from pipeline.verifier.reading.tree import Node

MAX_BITS = 200_000
"""Larger integers are not evaluated."""
_MAX_FACTORIAL = 5000
_MAX_EXPONENT = 10_000


class Unknown(Exception):
    """A tree that cannot be turned into a sympy expression, or into a set of reals."""


def rational(value: Fraction) -> Rational:
    return Rational(value.numerator, value.denominator)


def to_sympy(node: Node) -> Expr:
    """The sympy expression of a scalar.

    Raises:
        Unknown: it is not a scalar.
    """
    match node.head:
        case "number":
            return rational(node.args[0])
        case "based":
            return rational(node.args[2])
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
    """The terms of a sum, or the factors of a product, in order."""
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
    """True if working out the power could take forever, so that it stays as it is written."""
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
    if index.is_Integer and index % 2 == 1:  # the real root
        if radicand.is_negative:
            return -sympy.Pow(-radicand, 1 / index)
        if radicand.free_symbols:
            sign = sympy.sign(radicand)
            return sign * sympy.Pow(sign * radicand, 1 / index)
    return sympy.Pow(radicand, 1 / index)


def _factorial(value: Expr) -> Expr:
    if value.is_Integer and value < 0:
        raise Unknown
    return sympy.factorial(value, evaluate=not (value.is_Integer and value > _MAX_FACTORIAL))


def _binomial(above: Expr, below: Expr) -> Expr:
    is_whole = above.is_Integer and below.is_Integer
    is_large = is_whole and min(abs(below), abs(above - below)) > _MAX_FACTORIAL
    return sympy.binomial(above, below, evaluate=not is_large)


def _log_to_base(value: Expr, base: Expr) -> Expr:
    if base in (0, 1):
        raise Unknown
    return sympy.log(value) / sympy.log(base)


def _mod(value: Expr, modulus: Expr) -> Expr:
    if modulus == 0:
        raise Unknown
    return sympy.Mod(value, modulus)


def _for_integers(function: Callable[..., int]) -> Callable[..., Expr]:
    def checked(*arguments: Expr) -> Expr:
        if not all(argument.is_Integer for argument in arguments):
            raise Unknown
        return Integer(function(*arguments))

    return checked


_SYMBOLS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infty": sympy.oo}
_UNARY: dict[str, Callable[..., Any]] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot, "arcsec": sympy.asec,
    "arccsc": sympy.acsc, "asin": sympy.asin, "acos": sympy.acos, "atan": sympy.atan, "sinh": sympy.sinh,
    "cosh": sympy.cosh, "tanh": sympy.tanh, "coth": sympy.coth, "arcsinh": sympy.asinh, "arccosh": sympy.acosh,
    "arctanh": sympy.atanh, "log": sympy.log, "ln": sympy.log, "lg": lambda x: sympy.log(x, 10), "exp": sympy.exp,
    "sqrt": sympy.sqrt, "cbrt": lambda x: sympy.real_root(x, 3), "factorial": _factorial, "abs": sympy.Abs,
    "floor": sympy.floor, "ceil": sympy.ceiling, "sgn": sympy.sign, "re": sympy.re, "im": sympy.im, "arg": sympy.arg,
}  # fmt: skip
_BINARY: dict[str, Callable[..., Any]] = {"root": _root, "binomial": _binomial, "log": _log_to_base, "mod": _mod}
_VARIADIC: dict[str, Callable[..., Any]] = {
    "max": sympy.Max,
    "min": sympy.Min,
    "gcd": _for_integers(sympy.igcd),
    "lcm": _for_integers(sympy.ilcm),
}


def _call(name: str, arguments: list[Expr]) -> Expr:
    function = None
    if len(arguments) == 1:
        function = _UNARY.get(name)
    elif len(arguments) == 2:
        function = _BINARY.get(name)
    if function is None and len(arguments) > 1:
        function = _VARIADIC.get(name)
    if function is None:
        raise Unknown
    return function(*arguments)
