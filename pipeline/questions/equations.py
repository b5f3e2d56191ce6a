"""Equations in one unknown, linear or quadratic, with one solution: ``Solve for x: 3x + 5 = 20``."""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from pipeline.questions.expressions import ZERO_AND_ONE, numbers_of, read_bounded
from pipeline.verifier.reading.tree import Node, is_equation, nodes_of

_EQUATION, _NAME = r"(?P<equation>[^=?]+=[^=?]+?)", r"(?P<name>[a-zA-Z])"
_VALUE = f"(?:the value of )?{_NAME}"
_QUESTIONS = tuple(
    re.compile(form)
    for form in (
        rf"Solve for {_NAME}: ?{_EQUATION}\.?",
        rf"Solve (?:the equation )?{_EQUATION} for {_NAME}\.?",
        rf"(?:If|Given that) {_EQUATION}, (?:what is|find) {_VALUE}[?.]",
        rf"(?:What is|Find) {_VALUE} (?:if|when|such that) {_EQUATION}[?.]",
        rf"What value of {_NAME} (?:satisfies|solves) {_EQUATION}\?",
    )
)
_NOT_UNKNOWNS = "ei"
Polynomial = tuple[Fraction, Fraction, Fraction]
"""Coefficients of 1, x and x squared."""


class _NotAPolynomialError(ValueError):
    """A tree that is not a polynomial in the unknown of degree two or less."""


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation with its one solution."""

    name: str
    solution: Fraction
    num_operations: int
    largest: int
    is_trivial: bool

    @property
    def last_line(self) -> str:
        return f"{self.name} = {self.solution}"

    def holds(self, line: str) -> bool:
        """True if a line is an equation that the solution satisfies and that has something to compute."""
        tree = read_bounded(line)
        if tree is None or not is_equation(tree) or {side.head for side in tree.args[1:]} <= {"number", "neg"}:
            return False
        try:
            return _value(_difference(tree, self.name), self.solution) == 0
        except _NotAPolynomialError:
            return False


def read_equation(statement: str) -> Equation | None:
    """The equation of a statement, solved; None if it asks for none, or if there are no or several solutions."""
    plain = statement.replace("$", "")
    match = next((match for form in _QUESTIONS if (match := form.fullmatch(plain))), None)
    tree = read_bounded(match["equation"]) if match else None
    if match is None or tree is None or not is_equation(tree) or match["name"] in _NOT_UNKNOWNS:
        return None
    try:
        solution = _only_root(_difference(tree, match["name"]))
    except _NotAPolynomialError:
        return None
    if solution is None:
        return None
    trivial = [_is_trivial(node) for node in nodes_of(tree) if node.head in ("add", "mul", "div", "pow")]
    largest = ceil(max(abs(number) for number in (solution, *numbers_of(tree))))
    return Equation(match["name"], solution, trivial.count(False), largest, any(trivial) or not trivial)


def _is_trivial(node: Node) -> bool:
    """True if an operand is 0 or 1."""
    parts = [part.args[0] if part.head == "neg" else part for part in node.args]
    return any(part.head == "number" and part.args[0] in ZERO_AND_ONE for part in parts)


# Polynomials -------------------------------------------------------------------------------------------


def _difference(equation: Node, name: str) -> Polynomial:
    """The left side minus the right side."""
    _, left, right = equation.args
    return _plus(_polynomial(left, name), _times_number(_polynomial(right, name), Fraction(-1)))


def _polynomial(node: Node, name: str) -> Polynomial:
    match node.head, node.args:
        case "number", (value, _):
            return (value, Fraction(0), Fraction(0))
        case "symbol", (letter,) if letter == name:
            return (Fraction(0), Fraction(1), Fraction(0))
        case "neg", (inner,):
            return _times_number(_polynomial(inner, name), Fraction(-1))
        case "add", (left, right):
            return _plus(_polynomial(left, name), _polynomial(right, name))
        case "mul", (left, right):
            return _times(_polynomial(left, name), _polynomial(right, name))
        case "div", (above, below):
            divisor, *others = _polynomial(below, name)
            if divisor and not any(others):
                return _times_number(_polynomial(above, name), 1 / divisor)
        case "pow", (base, Node("number", (exponent, _))) if exponent == 2:
            factor = _polynomial(base, name)
            return _times(factor, factor)
    raise _NotAPolynomialError(node.head)


def _plus(left: Polynomial, right: Polynomial) -> Polynomial:
    return (left[0] + right[0], left[1] + right[1], left[2] + right[2])


def _times_number(factor: Polynomial, number: Fraction) -> Polynomial:
    return (factor[0] * number, factor[1] * number, factor[2] * number)


def _times(left: Polynomial, right: Polynomial) -> Polynomial:
    (a, b, c), (d, e, f) = left, right
    if b * f or c * e or c * f:
        raise _NotAPolynomialError("its degree is over 2")
    return (a * d, a * e + b * d, a * f + b * e + c * d)


def _value(polynomial: Polynomial, at: Fraction) -> Fraction:
    a, b, c = polynomial
    return a + at * (b + at * c)


def _only_root(polynomial: Polynomial) -> Fraction | None:
    """The only root; None if there are none or several."""
    a, b, c = polynomial
    if c:
        return -b / (2 * c) if b * b == 4 * a * c else None
    return -a / b if b else None
