"""Roots, fractional powers and logarithms of variables are compared where they are real."""

import pytest

from pipeline.verifier.compare.shapes import compare

EQUAL = [
    ("\\sqrt{\\frac{1}{k}}", "\\frac{1}{\\sqrt{k}}"),
    ("\\sqrt{x^3}", "x\\sqrt{x}"),
    ("x^{3/2}", "x\\sqrt{x}"),
    ("\\sqrt{x^2}", "|x|"),
    ("\\sqrt{x^4}", "x^2"),
    ("\\sqrt{a^2 - 2ab + b^2}", "|a - b|"),
    ("\\sqrt{xy}", "\\sqrt{x}\\sqrt{y}"),
    ("\\sqrt{\\frac{a}{b}}", "\\frac{\\sqrt{ab}}{|b|}"),
    ("\\sqrt{x - y}\\sqrt{x + y}", "\\sqrt{x^2 - y^2}"),
    ("\\sqrt{4x - 8000}", "2\\sqrt{x - 2000}"),
    ("m \\le \\frac{2\\sqrt{3}}{\\sqrt{n^3-n}}", "{m \\leq \\sqrt{\\frac{12}{n(n-1)(n+1)}}}"),
    ("y = \\sqrt{1/x}", "y = \\frac{1}{\\sqrt x}"),
    ("x^{1/3}", "\\sqrt[3]{x}"),
    ("\\sqrt[3]{x^3}", "x"),
    ("\\sqrt[3]{-x}", "-\\sqrt[3]{x}"),
    ("\\sqrt[4]{x^4}", "|x|"),
    ("2\\ln x", "\\ln(x^2)"),
    ("\\ln(x^2)", "2\\ln|x|"),
    ("\\log a + \\log b", "\\log(ab)"),
    ("\\log_4 x", "\\frac12\\log_2 x"),
    ("a^{\\log b}", "b^{\\log a}"),
    ("\\ln e^2", "2"),
    ("e^{\\ln x}", "x"),
    ("(-1)^n\\sqrt{n}", "(-1)^{n+2}\\sqrt{n}"),
]
UNEQUAL = [
    ("\\sqrt{x^2}", "x"),
    ("\\sqrt{2x^2}", "x\\sqrt{2}"),
    ("\\sqrt{x^2 y}", "x\\sqrt{y}"),
    ("\\sqrt{a^2 - 2ab + b^2}", "a - b"),
    ("\\sqrt{a^2 + 2ab + b^2}", "a + b"),
    ("\\sqrt{\\frac{a}{b}}", "\\frac{\\sqrt{ab}}{b}"),
    ("\\sqrt{\\sin^2 x}", "\\sin x"),
    ("\\sqrt{x} - 1", "\\sqrt{x - 2\\sqrt{x} + 1}"),
    ("\\frac{1 + \\sqrt{1-4x}}{2}", "\\frac{1 - \\sqrt{1-4x}}{2}"),
    ("\\sqrt{x}", "\\sqrt{-x}"),
    ("\\sqrt{x}", "\\sqrt{|x|}"),
    ("\\sqrt{x}", "\\sqrt{x + 1}"),
    ("\\sqrt[3]{x^3}", "|x|"),
    ("\\sqrt[4]{x^4}", "x"),
    ("\\lfloor\\sqrt{n-2}\\rfloor", "\\lfloor\\sqrt{n-1}\\rfloor"),
    ("\\log(a + b)", "\\log a + \\log b"),
    ("\\ln x", "\\ln|x|"),
    ("\\ln x", "\\ln(-x)"),
    ("\\ln(x - 5)", "\\ln(5 - x)"),
    ("(-1)^n\\sqrt{n}", "(-1)^{n+1}\\sqrt{n}"),
]


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_equal_where_both_are_real(left, right):
    assert compare(left, right) == compare(right, left) == (True, None)


@pytest.mark.parametrize(("left", "right"), UNEQUAL)
def test_unequal_somewhere(left, right):
    assert compare(left, right) == compare(right, left) == (False, False)
