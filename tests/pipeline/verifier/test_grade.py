"""Equal and unequal answers, and the method that decides: docs/verifier.md as tables."""

import pytest

from pipeline.verifier import Verdict
from tests.support.verifier import answered

RIGHT = [
    ("72", "72", "exact"),
    (" $72$. ", "72", "exact"),
    ("\\(\\frac{1}{2}\\)", "\\frac{1} {2}", "exact"),
    ("Tuesday", "Tuesday", "exact"),
    ("72.0", "72", "symbolic"),
    ("$72", "72", "symbolic"),
    ("$1,000", "1000", "symbolic"),
    ("-$1,000.50", "-1000.5", "symbolic"),
    ("1,000,000", "1000000", "symbolic"),
    ("1,\\!000", "1000", "symbolic"),
    ("−5", "-5", "symbolic"),
    ("+5", "5", "symbolic"),
    ("072", "72", "symbolic"),
    (".5", "1/2", "symbolic"),
    ("\\frac{1}{2}", "0.5", "symbolic"),
    ("-\\dfrac{3}{4}", "-0.75", "symbolic"),
    ("1\\frac{1}{2}", "3/2", "symbolic"),
    ("1 1/2", "1.5", "symbolic"),
    ("1e3", "1000", "symbolic"),
    ("50%", "50", "symbolic"),
    ("50\\%", "0.5", "symbolic"),
    ("0.5", "50%", "symbolic"),
    ("72 clips", "72", "symbolic"),
    ("72\\text{ cm}^2", "72", "symbolic"),
    ("18 dollars", "$18", "symbolic"),
    ("x = 1,080", "1080", "symbolic"),
    ("**72**", "72", "exact"),
    ("\\boxed{72}", "72", "exact"),
    ("tuesday", "Tuesday", "symbolic"),
    ("\\text{Tuesday}", "Tuesday", "symbolic"),
    ("48 + 24 = 72", "72", "symbolic"),
    ("2\\sqrt{3}", "\\sqrt{12}", "symbolic"),
    ("2*sqrt(3)", "2\\sqrt{3}", "symbolic"),
    ("x**2 + 2*x + 1", "(x+1)^2", "symbolic"),
    ("2**10", "1024", "symbolic"),
    ("2pi", "2\\pi", "symbolic"),
    ("(1, 2.0)", "(1,2)", "symbolic"),
    ("2 and 1", "\\{1, 2\\}", "symbolic"),
    ("\\begin{pmatrix}1&2\\\\ 3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4.0\\end{bmatrix}", "symbolic"),
    ("(B)", "B", "exact"),
    ("B: language family", "B", "symbolic"),
    ("0.33333", "1/3", "numeric"),
    ("3.14159", "\\pi", "numeric"),
    ("2 hours 30 minutes", "150 minutes", "symbolic"),
    ("0.05 m", "5 cm", "symbolic"),
    ("3:30 PM", "15:30", "symbolic"),
    ("\\frac{6}{8}", "3:4", "symbolic"),
    ("1101_2", "13", "symbolic"),
    ("x > 3", "(3, \\infty)", "symbolic"),
    ("4x + 6y = 12", "2x + 3y = 6", "symbolic"),
    ("\\pm 2", "2, -2", "symbolic"),
    ("0.333...", "1/3", "symbolic"),
    ("\\frac{\\pi}{2}", "90^\\circ", "symbolic"),
    ("1/2^98", "\\frac{2}{2^{99}}", "symbolic"),
    ("12 345", "12345", "symbolic"),
    ("5 cm2", "5\\text{ cm}^2", "symbolic"),
    ("5 third graders", "5", "symbolic"),
    ("Yes!", "yes", "symbolic"),
    ("|-x - 1|", "|x + 1|", "symbolic"),
    ("y > 5", "(5, \\infty)", "symbolic"),
]


@pytest.mark.parametrize(("answer", "gold", "method"), RIGHT)
def test_right_answers_and_the_method_that_finds_them(answer, gold, method, grader):
    verdict = grader.grade(answered(answer), gold)
    assert (verdict.outcome, verdict.method) == ("correct", method)


WRONG = [
    ("73", "72"),
    ("-72", "72"),
    ("72.01", "72"),
    ("720", "72"),
    ("0.333", "1/3"),
    ("3.14", "\\pi"),
    ("1000.001", "1000"),
    ("0.99999", "1"),
    ("71, 72", "72"),
    ("72 or 71", "72"),
    ("72} or 71", "72"),
    ("5} \\boxed{6", "6"),
    ("\\boxed{71} or \\boxed{72}", "72"),
    ("5 million", "5"),
    ("2 pi", "2"),
    ("18 eggs", "$18"),
    ("y = 5", "x = 5"),
    ("5%", "500"),
    ("(1,2)", "[1,2]"),
    ("cat", "act"),
    ("Monday", "Tuesday"),
    ("I am not sure", "72"),
    ("not 72", "72"),
    ("1/2^98", "1/2^99"),
    ("5 m", "5 cm"),
    ("(2, 1)", "(1, 2)"),
    ("x \\ge 3", "x > 3"),
    ("2", "\\pm 2"),
    ("3:1", "3"),
    ("July 20", "June 20"),
    ("99!", "100!"),
    ("\\sqrt{10^{100}+1}", "10^{50}"),
    ("e^{\\pi\\sqrt{163}}", "262537412640768744"),
    ("72", "Tuesday"),
    ("3 1/2", "31/2"),
    ("31/2", "3 1/2"),
    ("3 4", "34"),
    ("n!", "n"),
    ("5 times 3", "5"),
    ("5 plus 3", "5"),
    ("5 divided by 2", "5"),
    ("5 out of 6", "5"),
    ("5% of 20", "5"),
    ("5 to 7 hours", "5"),
    ("5 remainder 2", "5"),
    ("5 squared", "5"),
    ("5 tenths", "5"),
    ("two thirds", "2"),
    ("three quarters", "3"),
    ("5 not 6", "5"),
    ("y = 3 when x = 2", "2"),
    ("3 at x = 2", "2"),
    ("|x + 1|", "x + 1"),
    ("\\max(x, -5)", "x"),
    ("x > 5", "y > 5"),
    ("0 < x < 1", "0 < y < 1"),
    ("\\tan 90^\\circ", "\\log 0"),
    ("1/0", "5"),
    ("\\frac{1}{", "5"),
    ("$", "5"),
    ("x", "5"),
]


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_wrong_answers(answer, gold, grader):
    verdict = grader.grade(answered(answer), gold)
    assert verdict.outcome in ("incorrect", "unparsed") and verdict.method is None


@pytest.mark.parametrize("gold", ["", "  \n", "$", "$$", ".", "\\(\\)", "???", "\\frac{1}{", "+ *", "9" * 5000])
def test_an_unreadable_gold_is_never_rewarded(gold, grader):
    for answer in ("5", gold[:4] or "$"):
        assert grader.grade(answered(answer), gold).outcome in ("bad_gold", "unparsed")
    assert grader.grade(answered("5"), gold).outcome == "bad_gold"


@pytest.mark.parametrize(
    "gold", ["48 + 24 = 72\n#### 72", "It is \\boxed{72}.", "$72$", "The sum is $72$.", "\\boxed{72}", "\\fbox{72}."]
)
def test_a_gold_text_may_say_more_than_the_answer(gold, grader):
    assert grader.grade(answered("72"), gold) == Verdict("correct", "exact", "72")
    assert grader.grade(answered("48"), gold).outcome == "incorrect"


def test_completion_without_an_answer_is_unparsed(grader):
    assert grader.grade("I do not know.", "72") == Verdict("unparsed")


def test_all_methods_reports_each_comparison_and_leaves_the_verdict_unchanged(grader):
    def reported(answer: str, gold: str) -> tuple[object, ...]:
        verdict = grader.grade(answered(answer), gold, all_methods=True)
        plain = grader.grade(answered(answer), gold)
        assert (verdict.outcome, verdict.method) == (plain.outcome, plain.method)
        return verdict.method, verdict.strict, verdict.symbolic, verdict.numeric

    assert reported("72", "72") == ("exact", True, True, True)
    assert reported("72.0", "72") == ("symbolic", False, True, True)
    assert reported("\\sqrt{4}", "2") == ("symbolic", False, True, True)
    assert reported("73", "72") == (None, False, False, False)
    assert reported("0.333333", "1/3") == ("numeric", False, False, True)


@pytest.mark.parametrize(
    ("answer", "gold", "outcome"),
    [
        ("10, 20, 300", "10,20,300", "correct"),
        ("300,20,10", "10, 20, 300", "correct"),
        ("10 and 20 and 300", "10,20,300", "correct"),
        ("10,20,300", "\\{10, 20, 300\\}", "correct"),
        ("10,20,301", "10,20,300", "incorrect"),
        ("1,00,000\\sqrt2", "100000\\sqrt2", "correct"),
        ("1" * 5000, "1" * 5000, "correct"),
        ("1" * 4999 + "2", "1" * 5000, "bad_gold"),
    ],
)
def test_groups_of_digits_and_long_integers(answer, gold, outcome, grader):
    assert grader.grade(answered(answer), gold).outcome == outcome
