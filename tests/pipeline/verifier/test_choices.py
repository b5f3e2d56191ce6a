"""Multiple choice: the letter decides, then what both sides say."""

import pytest

from tests.support.verifier import answered

GOLDS = ["\\textbf{(C)}\\ 12", "\\textbf{(C) }12", "(C) 12", "C. 12", "\\text{(C)} 12", "{\\bf (C)}\\ 12", "C: 12"]
LETTERS = [
    "C",
    "(C)",
    "\\text{(C)}",
    "\\textbf{(C)}",
    "\\mathrm{C}",
    "\\textbf{(C)}\\ 12",
    "C. 12",
    "(C) 12.0",
    "C) 12",
]


@pytest.mark.parametrize("gold", [*GOLDS, "C", "(C)", "\\text{(C)}", "\\textbf{C}"])
def test_a_letter_is_right_however_it_is_set(gold, grader):
    assert {grader.grade(answered(letter), gold).outcome for letter in LETTERS} == {"correct"}
    assert {grader.grade(answered(letter.replace("C", "B")), gold).outcome for letter in LETTERS} == {"incorrect"}


@pytest.mark.parametrize("gold", GOLDS)
def test_the_text_alone_is_right_and_another_text_is_wrong(gold, grader):
    for answer, outcome in [
        ("12", "correct"),
        ("\\frac{24}{2}", "correct"),
        ("13", "incorrect"),
        ("C. 13", "incorrect"),
    ]:
        assert grader.grade(answered(answer), gold).outcome == outcome


@pytest.mark.parametrize(
    ("answer", "gold", "outcome"),
    [
        ("C", "\\textbf{(C)}\\ \\frac{1}{2}", "correct"),
        ("0.5", "\\textbf{(C)}\\ \\frac{1}{2}", "correct"),
        ("(C) 0.5", "\\textbf{(C)}\\ \\frac{1}{2}", "correct"),
        ("D", "\\textbf{(C)}\\ \\frac{1}{2}", "incorrect"),
        ("\\textbf{(C)}\\ 12", "12", "correct"),
        ("(C) 12", "13", "incorrect"),
        ("(A), (C)", "A", "incorrect"),
        ("(A) and (C)", "A", "incorrect"),
        ("A or C", "A", "unparsed"),
        ("B - 5", "5", "incorrect"),
        ("C x", "x", "incorrect"),
        ("B", "B - 5", "incorrect"),
        ("Paris", "B. Paris", "correct"),
        ("B. Rome", "B. Paris", "incorrect"),
    ],
)
def test_choices(answer, gold, outcome, grader):
    assert grader.grade(answered(answer), gold).outcome == outcome
