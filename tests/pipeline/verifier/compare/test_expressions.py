"""Arithmetic on numbers agrees with fractions, and equality with arithmetic."""

import operator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Rational

from pipeline.verifier.compare import scalars
from pipeline.verifier.compare.expressions import Unknown, to_sympy
from pipeline.verifier.reading.parser import read
from pipeline.verifier.reading.tree import Node, number

LAWS = settings(max_examples=60, deadline=None, derandomize=True)


def sums_and_products(operands: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    pairs = st.tuples(operands, operands)
    return st.builds(Node, st.sampled_from(["add", "mul", "div"]), pairs) | operands.map(
        lambda node: Node("neg", (node,))
    )


NUMBERS = st.integers(-9, 9).map(number)
ARITHMETIC = st.recursive(NUMBERS, sums_and_products, max_leaves=6)
WITH_VARIABLES = st.recursive(
    NUMBERS | st.sampled_from("xy").map(lambda name: Node("symbol", (name,))), sums_and_products, max_leaves=5
)


def value_of(node: Node) -> Fraction | None:
    """The value by fractions; None where a division by zero leaves it undefined."""
    try:
        return defined_value_of(node)
    except ZeroDivisionError:
        return None


def defined_value_of(node: Node) -> Fraction:
    if node.head == "number":
        return Fraction(node.args[0])
    if node.head == "neg":
        return -defined_value_of(node.args[0])
    left, right = map(defined_value_of, node.args)
    return {"add": operator.add, "mul": operator.mul, "div": operator.truediv}[node.head](left, right)


@given(ARITHMETIC)
@LAWS
def test_arithmetic_agrees_with_fractions(tree):
    value = value_of(tree)
    if value is None:
        with pytest.raises(Unknown):
            to_sympy(tree)
    else:
        assert to_sympy(tree) == Rational(value.numerator, value.denominator)


@given(ARITHMETIC, ARITHMETIC)
@LAWS
def test_numbers_are_equal_when_their_values_are(left, right):
    values = value_of(left), value_of(right)
    is_equal = None not in values and values[0] == values[1]
    assert scalars.exact(left, right) == scalars.exact(right, left) == is_equal
    assert scalars.exact(left, left) == (values[0] is not None)


@given(WITH_VARIABLES, WITH_VARIABLES)
@LAWS
def test_equality_with_variables_is_symmetric_and_survives_rewriting(left, right):
    assert scalars.exact(left, right) == scalars.exact(right, left)
    both_ways = Node("add", (left, right)), Node("add", (right, left))
    try:
        to_sympy(both_ways[0])
    except Unknown:
        return
    assert scalars.exact(*both_ways)


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "close"),
    [
        ("0.33333", "\\frac13", False, True),
        ("0.333", "\\frac13", False, False),
        ("\\sqrt{10^{100}+1}", "10^{50}", False, False),
        ("\\cos\\frac{\\pi}{3}", "\\frac12", True, True),
        ("2^{10^{12}}", "2^{10^{12}}", True, True),
        ("100!", "99!\\cdot 100", True, True),
        ("90^\\circ", "\\frac{\\pi}{2}", True, True),
        ("50%", "0.5", True, True),
        ("5 meters", "500 cm", True, True),
        ("5 meters", "5 cm", False, False),
        ("\\frac{x^2-1}{x-1}", "x+1", True, True),
        ("|x|", "x", False, False),
        ("X", "x", True, True),
        ("\\frac10", "\\frac10", False, False),
    ],
)
def test_scalars(answer, gold, exact, close):
    trees = read(answer), read(gold)
    assert (scalars.exact(*trees), scalars.close(*trees)) == (exact, close)
