"""Plain numbers: however they are spelled, their value is read and compared exactly."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verifier.normalize.quantity import Quantity, close_quantity, read_quantity, same_quantity
from pipeline.verifier.normalize.spelling import clean

LAWS = settings(max_examples=100, deadline=None, derandomize=True)
DIGITS, DECIMALS = st.integers(-(10**9), 10**9), st.integers(0, 6)


def decimal(digits: int, decimals: int) -> str:
    """``digits`` over ten to the ``decimals``, as a decimal."""
    text = str(abs(digits)).zfill(decimals + 1)
    return "-" * (digits < 0) + (f"{text[:-decimals]}.{text[-decimals:]}" if decimals else text)


def spellings(text: str) -> list[str]:
    sign, whole, dot_and_decimals = (
        "-" * text.startswith("-"),
        text.strip("-").partition(".")[0],
        text.partition(".")[2],
    )
    rest = f".{dot_and_decimals}" if dot_and_decimals else ""
    grouped = f"{int(whole):,}"
    return [
        text, f"{sign}{grouped}{rest}", f"{sign}{grouped.replace(',', '{,}')}{rest}", f"{sign}${whole}{rest}",
        f"${text}$", f"\\({text}\\)", f"**{text}**", f"x = {text}", f"\\text{{{text}}}", f"{text} apples",
        f"{text}{'' if rest else '.'}0", f"about {text}", f"−{whole}{rest}" if sign else f"+{text}",
    ]  # fmt: skip


def quantity(text: str) -> Quantity:
    parsed = read_quantity(clean(text), prose=True)
    assert parsed is not None, text
    return parsed


@given(DIGITS, DECIMALS)
@LAWS
def test_every_spelling_has_the_value(digits, decimals):
    value = Fraction(digits, 10**decimals)
    assert {text: quantity(text).value for text in spellings(decimal(digits, decimals))} == dict.fromkeys(
        spellings(decimal(digits, decimals)), value
    )


@given(DIGITS, st.integers(1, 10**6))
@LAWS
def test_fractions_are_exact(above, below):
    texts = [f"{above}/{below}", f"{'-' * (above < 0)}\\frac{{{abs(above)}}}{{{below}}}"]
    assert {quantity(text).value for text in texts} == {Fraction(above, below)}


@given(DIGITS, DECIMALS, DIGITS, DECIMALS)
@LAWS
def test_equality_is_symmetric_and_exact(digits, decimals, other_digits, other_decimals):
    left, right = quantity(decimal(digits, decimals)), quantity(decimal(other_digits, other_decimals))
    assert same_quantity(left, right) == same_quantity(right, left) == (left.value == right.value)
    assert same_quantity(left, left) and close_quantity(left, left)


@given(DIGITS, DECIMALS, st.integers(1, 10**4))
@LAWS
def test_a_close_number_is_within_the_tolerance_and_no_integer(digits, decimals, difference):
    gold, answer = quantity(decimal(digits, decimals)), quantity(decimal(digits + difference, decimals))
    if close_quantity(answer, gold):
        assert abs(answer.value - gold.value) <= abs(gold.value) / 100_000
        assert answer.value.denominator > 1 and gold.value.denominator > 1 and decimals >= 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12,34,567", 1234567),
        ("1,00,000", 100000),
        ("1,23,45,678", 12345678),
        ("-12,34,567.50", Fraction("-1234567.5")),
        ("₹12{,}34{,}567", 1234567),
        ("5 lakh", 500000),
        ("2 crore rupees", 20000000),
    ],
)
def test_indian_digit_groups(text, value):
    assert quantity(text).value == value


@pytest.mark.parametrize("text", ["1,00", "1,00,00", "123,45,678", "0,12,345", "12,34,5678", "12, 34, 567"])
def test_other_groups_are_no_number(text):
    assert read_quantity(clean(text), prose=True) is None
