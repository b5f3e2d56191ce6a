from fractions import Fraction

import pytest

from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN
from pipeline.verifier.reading.texts import tree_of
from pipeline.verifier.reading.tree import Node, number


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("3:30 p.m.", Node("time", (3, 30, 0, "p"))),
        ("15:30", Node("time", (15, 30, 0, ""))),
        ("3 to 4", Node("ratio", (number(3), number(4)))),
        ("1A.8_16", Node("based", ("1A.8", 16, Fraction(53, 2)))),
        ("-11 base two", Node("based", ("-11", 2, Fraction(-3)))),
        ("29_2", Node("words", ("29_2",))),
        ("dark blue", Node("words", ("dark blue",))),
        ("red, 3", Node("list", ((",",), Node("words", ("red",)), number(3)))),
        (f"red {TEXT_OPEN}or{TEXT_CLOSE} 3", Node("list", (("or",), Node("words", ("red",)), number(3)))),
        ("f(red, 3)", Node("words", ("f(red, 3)",))),
    ],
)
def test_trees_of_any_text(text, tree):
    assert tree_of(text) == tree


def test_a_comma_between_digits_has_two_readings():
    assert tree_of("1,234") == number(1234)
    assert tree_of("1,234", thousands=False) == Node("list", ((",",), number(1), number(234)))
