"""Comparison of written answers with the right option."""

import pytest

from pipeline.evaluation.memory.matching import compare, normalized

OPTIONS = ("Germany", "New York City", "Oman")


@pytest.mark.parametrize(
    "answer, exact, startswith, contains",
    [
        ("Germany", True, True, True),
        (" germany. ", True, True, True),
        ("GERMANY。", True, True, True),
        ("Germany is the answer", False, True, True),
        ("The answer is Germany.", False, False, True),
        ("A: Germany", False, False, True),
        ("Germany or Oman", False, True, False),
        ("It is not Oman but Germany", False, False, False),
        ("Oman", False, False, False),
        ("", False, False, False),
        ("Ger many", False, False, False),
    ],
)
def test_answers_are_compared_in_three_ways(answer, exact, startswith, contains):
    expected = {"exact": exact, "startswith": startswith, "contains": contains}
    assert compare(answer, "Germany", OPTIONS) == expected


def test_the_right_option_may_be_listed_twice():
    assert compare("Oman", "Oman", [*OPTIONS, "oman."])["contains"]


def test_white_space_width_and_case_do_not_count():
    assert normalized("  Ｎew\n YORK  city. ") == "new york city"
