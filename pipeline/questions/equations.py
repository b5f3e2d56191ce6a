"""Equations in one unknown with one real solution, which is rational: ``Solve for x: 3x + 5 = 20``.

Both sides are quotients of polynomials of low degree, with bounded coefficients. SymPy finds the roots of those of
degree 2 and more; it gets coefficients, never a text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from math import ceil

from pipeline.questions.expressions import (
    ZERO_AND_ONE,
    UnworkableError,
    bounded,
    canonical,
    decimal,
    numbers_of,
    power,
    read_bounded,
)
from pipeline.verifier.reading.tree import Node, is_equation, nodes_of

_EQUATION, _NAME = r"(?P<equation>[^=?]+=[^=?]+?)", r"(?P<name>[a-zA-Z])"
_CHAIN = r"(?P<equation>[^=?]+(?:=[^=?]+?)+)"
_SIDE = r"(?:[^=?a-zA-Z\\]|[a-zA-Z](?![a-zA-Z])|\\(?:times|cdot|div|[dt]?frac|left|right)(?![a-zA-Z]))+"
"""No words: nothing else says that the rest of a sentence is an equation."""
_VALUE = f"(?:the value of )?{_NAME}"
_QUESTIONS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"(?:Solve|Find)(?: for)? {_NAME}: ?{_CHAIN}\.?",
        rf"Solve (?:the equation )?{_EQUATION} for {_NAME}\.?",
        rf"(?:If|Given that) {_EQUATION}, (?:then )?(?:what is|find|determine) {_VALUE}[?.]",
        rf"(?:What is|Find|Determine) {_VALUE} (?:if|when|such that|given that) {_EQUATION}[?.]",
        rf"What value of {_NAME} (?:satisfies|solves) {_EQUATION}\?",
        rf"Solve(?: the equation)?:? (?P<equation>{_SIDE}={_SIDE})",
    )
)
_NOT_UNKNOWNS = "ei"
_MAX_DEGREE = 4
_OPERATIONS = ("add", "mul", "div", "pow")
Polynomial = tuple[Fraction, ...]
"""Coefficients of 1, x, x squared and so on. The last one is not 0."""
Quotient = tuple[Polynomial, Polynomial]
"""Numerator and denominator."""
_ONE: Polynomial = (Fraction(1),)


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation with its one solution."""

    name: str
    solution: Fraction
    num_operations: int
    largest: int
    is_trivial: bool
    key: tuple[str, ...]
    """As of ``task_key``."""

    @property
    def last_line(self) -> str:
        return f"{self.name} = {self.solution}"

    def is_solved_by(self, lines: Sequence[str]) -> bool:
        """True for one or more equations that the solution satisfies, at least one of them with something to compute,
        and then the solution."""
        *before, last = lines
        trees = [self._solved(line) for line in before]
        is_worked = any(node.head in _OPERATIONS for tree in trees if tree for node in nodes_of(tree))
        return is_worked and all(trees) and last in (self.last_line, f"{self.name} = {decimal(self.solution)}")

    def _solved(self, line: str) -> Node | None:
        """The tree of a line; None if it is no equation, not true for the solution, or true for every number."""
        tree = read_bounded(line)
        if tree is None or not is_equation(tree):
            return None
        try:
            above, below = _difference(tree, self.name)
        except UnworkableError:
            return None
        is_solved = above and _value(above, self.solution) == 0 and _value(below, self.solution) != 0
        return tree if is_solved else None


def asks_for_solution(statement: str) -> bool:
    """True for a question about an equation, whether it can be solved or not."""
    return _asked(statement) is not None


def read_equation(statement: str) -> Equation | None:
    """The equation of a statement, solved; None if it asks for none, or has not exactly one solution that is
    computed."""
    match = _asked(statement)
    tree = read_bounded(match["equation"]) if match else None
    if match is None or tree is None or not is_equation(tree):
        return None
    name = match.groupdict().get("name") or _only_symbol(tree)
    if name is None or name in _NOT_UNKNOWNS:
        return None
    try:
        solution = _only_root(*_difference(tree, name))
    except UnworkableError:
        return None
    if solution is None:
        return None
    trivial = [_is_trivial(node) for node in nodes_of(tree) if node.head in _OPERATIONS]
    largest = ceil(max(abs(number) for number in (solution, *numbers_of(tree))))
    key = ("equation", canonical(tree, name))
    return Equation(name, solution, trivial.count(False), largest, any(trivial) or not trivial, key)


def _asked(statement: str) -> re.Match[str] | None:
    plain = statement.replace("$", "")
    return next((match for form in _QUESTIONS if (match := form.fullmatch(plain))), None)


def _only_symbol(tree: Node) -> str | None:
    names = {str(node.args[0]) for node in nodes_of(tree) if node.head == "symbol"}
    return names.pop() if len(names) == 1 else None


def _is_trivial(node: Node) -> bool:
    """True if an operand is 0 or 1."""
    parts = [part.args[0] if part.head == "neg" else part for part in node.args]
    return any(part.head == "number" and part.args[0] in ZERO_AND_ONE for part in parts)


# Quotients of polynomials ------------------------------------------------------------------------------


def _difference(equation: Node, name: str) -> Quotient:
    """Left side minus right side."""
    _, left, right = equation.args
    return _quotient(Node("add", (left, Node("neg", (right,)))), name)


def _quotient(node: Node, name: str) -> Quotient:
    """A tree as a quotient. What it is divided by stays below, so that no denominator is forgotten."""
    match node.head, node.args:
        case "number", (Fraction() as value, _):
            return _polynomial([value]), _ONE
        case "symbol", (letter,) if letter == name:
            return (Fraction(0), Fraction(1)), _ONE
        case "neg", (inner,):
            above, below = _quotient(inner, name)
            return _times(above, (Fraction(-1),)), below
        case "add", (left, right):
            (a, b), (c, d) = _quotient(left, name), _quotient(right, name)
            return (_plus(a, c), b) if b == d else (_plus(_times(a, d), _times(c, b)), _times(b, d))
        case "mul", (left, right):
            (a, b), (c, d) = _quotient(left, name), _quotient(right, name)
            return _times(a, c), _times(b, d)
        case "div", (left, right):
            (a, b), (c, d) = _quotient(left, name), _quotient(right, name)
            if c and len(d) == 1:
                return _times(a, d), _times(b, c)
        case "pow", (base, exponent):
            return _raised(_quotient(base, name), _quotient(exponent, name))
    raise UnworkableError(node.head)


def _raised(base: Quotient, by: Quotient) -> Quotient:
    exponent = _constant(by)
    if exponent is None:
        raise UnworkableError("an unknown exponent")
    if (number := _constant(base)) is not None:
        return _polynomial([power(number, exponent)]), _ONE
    if exponent not in range(1, _MAX_DEGREE + 1):
        raise UnworkableError("exponent")
    result = base
    for _ in range(int(exponent) - 1):
        result = _times(result[0], base[0]), _times(result[1], base[1])
    return result


def _constant(quotient: Quotient) -> Fraction | None:
    above, below = quotient
    if len(above) > 1 or len(below) > 1:
        return None
    return above[0] / below[0] if above else Fraction(0)


def _polynomial(coefficients: Sequence[Fraction]) -> Polynomial:
    degree = max((place for place, value in enumerate(coefficients) if value), default=-1)
    if degree > _MAX_DEGREE:
        raise UnworkableError("degree")
    return tuple(map(bounded, coefficients[: degree + 1]))


def _plus(left: Polynomial, right: Polynomial) -> Polynomial:
    return _polynomial([a + b for a, b in zip_longest(left, right, fillvalue=Fraction(0))])


def _times(left: Polynomial, right: Polynomial) -> Polynomial:
    product = [Fraction(0)] * (len(left) + len(right))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            product[i + j] += a * b
    return _polynomial(product)


def _value(polynomial: Polynomial, at: Fraction) -> Fraction:
    return sum((coefficient * at**degree for degree, coefficient in enumerate(polynomial)), Fraction(0))


def _only_root(above: Polynomial, below: Polynomial) -> Fraction | None:
    """The real number at which a quotient is 0; None if there are none or several."""
    roots = [root for root in _real_roots(above) if _value(below, root)]
    return roots[0] if len(roots) == 1 else None


def _real_roots(polynomial: Polynomial) -> list[Fraction]:
    """
    Raises:
        UnworkableError: every number is a root, or some root is irrational.
    """
    if not polynomial:
        raise UnworkableError("identity")
    if len(polynomial) <= 2:
        return [-a / b for a, b in [polynomial]] if len(polynomial) == 2 else []
    from sympy import QQ, Poly, Symbol

    coefficients = [QQ(value.numerator, value.denominator) for value in reversed(polynomial)]
    poly = Poly.from_list(coefficients, Symbol("x"), domain=QQ).sqf_part()
    roots = [Fraction(int(root.p), int(root.q)) for root in poly.ground_roots()]
    if poly.count_roots() != len(roots):
        raise UnworkableError("irrational")
    return roots
