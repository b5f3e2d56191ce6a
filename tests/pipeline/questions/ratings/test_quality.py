"""Faults that each check finds."""

import pytest

from pipeline.questions.ratings.quality import CHECKS, MAX_STATEMENT_CHARS, Stated, rate_quality
from pipeline.questions.ratings.steps import follows, is_mentioned, last_step

QUESTION = "What is $3 + 4$?"


def found(check: str, statement: str = QUESTION, solution: str = "", answer: str = "7") -> str:
    return CHECKS[check](Stated(statement, solution, answer)).reason


@pytest.mark.parametrize(
    ("check", "statement", "reason"),
    [
        ("complete", "Find all $x$ such that $x^2 = 4$.", ""),
        ("complete", "Round to the nearest tenth: 36.89753", ""),
        ("complete", "The product of the roots is", "the statement does not end as a sentence"),
        ("complete", "Let $x$ be a number with $x^2 = 4$.", "the statement asks for nothing"),
        ("complete", "What is the sum of 3 and 4? What is the sum of 3 and 4?", "the statement says the same twice"),
        ("complete", "Find $x + y$", "the statement ends without a full stop"),
        ("length", "1 + 1?", "the statement has only 6 characters"),
        ("length", "x" * (MAX_STATEMENT_CHARS + 1), "the statement or the solution is too long"),
        ("figure", "In the diagram, $BP$ bisects $\\angle B$. Find $x$.", "a figure is missing"),
        ("figure", "What is the area of the triangle shown?", "a figure is missing"),
        ("figure", "What is the area of the triangle shown? [asy] draw((0,0)--(1,1)); [/asy]", ""),
        ("figure", "Which is larger, the graph of $f$ or that of $g$?", ""),
        ("figure", "Can you figure out my number?", ""),
    ],
)
def test_statement(check, statement, reason):
    assert found(check, statement) == reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (r"\frac{3}{4}", ""),
        ("Tuesday", ""),
        ("1, 2", "the answer may be several"),
        ("", "there is no answer"),
        ("...", "the verifier cannot read the answer"),
        ("Prove by induction.", "a proof cannot be checked"),
        (
            "the length of the altitude of the tetrahedron from the vertex $A$",
            "the answer is not a formula or a few words",
        ),
    ],
)
def test_answer(answer, reason):
    assert found("checkable", answer=answer) == reason


def test_several_answers_are_fine_where_all_are_asked_for():
    assert found("checkable", "Find all solutions of $(x - 1)(x - 2) = 0$.", answer="1, 2") == ""


@pytest.mark.parametrize(
    ("solution", "answer", "reason"),
    [
        (r"It is $3 + 4 = \boxed{7}$.", "7", ""),
        (r"It is $\boxed{7}$.", "7", "the answer is only in its box"),
        (r"There are $3$ and $4$, so we get $\boxed{7}$.", "7", "the answer follows from the last numbers, but is not"),
        (r"From $7$ on we stay. So it is $\boxed{7}$.", "7", ""),
        (r"It is $3 + 4 = \boxed{8}$.", "8", "the last step is wrong: 3 + 4 is not 8"),
        (r"It is $3 + 4 = \boxed{7}$.", "8", "the solution ends in 7, not in the answer"),
        (r"It is $3 + 4 = \boxed{}$.", "7", "the box of the answer is empty or not closed"),
        (r"It is $3 + 4 = \boxed{7}$, and th", "7", "the solution does not end as a sentence"),
        ("", "7", "there is no worked solution"),
        ("The answer is 7.", "7", "no box marks the answer"),
        ("Three and four cannot be added.", "7", "the solution does not reach the answer"),
    ],
)
def test_solution(solution, answer, reason):
    [quality] = rate_quality([Stated(QUESTION, solution, answer)])
    assert quality.findings.get("reached", ("", ""))[1].startswith(reason)
    assert ("reached" in quality.findings) == bool(reason)


def test_the_score_is_the_product_of_the_shares():
    """0.3 for a missing end, 0.1 for another answer."""
    [quality] = rate_quality([Stated("What is the sum of $3$ and", r"It is $3 + 4 = \boxed{7}$.", "8")])
    assert quality.score == 0.03
    assert quality.reasons == "the statement does not end as a sentence; the solution ends in 7, not in the answer"


def test_a_repeated_problem_has_no_quality_but_the_first_keeps_its_own():
    problems = [Stated(text, r"$3 + 4 = \boxed{7}$.", "7") for text in (QUESTION, "what is $3+4$", QUESTION)]
    assert [quality.score > 0 for quality in rate_quality(problems)] == [True, False, False]


def test_the_last_step_is_read_over_line_breaks_and_not_where_it_is_rounded():
    assert last_step(r"\begin{align*} a &= 5 \cdot 9 \\ &= \boxed{45} \end{align*}") == (r"5 \cdot 9", "45")
    assert last_step(r"so $x = 10/3 = \boxed{3.33}$ to the nearest hundredth") is None
    assert last_step(r"so it is $\boxed{3}$") is None
    assert not last_step(r"$4 \cdot 32\frac{1}{3} = \boxed{129\frac{1}{3}}$").is_numeric  # type: ignore[union-attr]


def test_where_an_answer_stands():
    assert is_mentioned("1,000", r"There are $1000$ of them. So \boxed{1000}")
    assert is_mentioned(r"\dfrac{1}{2}", r"$\mathbf{4 0}$ and $\frac{1}{2}$") and is_mentioned("40", r"$\mathbf{4 0}$")
    assert not is_mentioned("7", r"$17$ and $7.5$, so \boxed{7}")
    assert follows("12", r"$3$ times $4$, which is \boxed{12}") and not follows("13", r"$3$ times $4$ is \boxed{13}")


HOSTILE = [
    *("\\{" * 9000, "$" * 20_000, "=" * 50_000, "\\boxed{" * 3000, "[asy]" * 20_000, "1 " * 20_000, "(" * 50_000),
    *("\\begin{asy}" * 9000, "\\text{" * 3000, "shown " * 5000, "9" * 10_000, "2^" * 5000 + "2"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:8])
def test_hostile_texts_are_rated_in_time(text):
    """Each takes far below a second, but for the grading child."""
    stated = [Stated(text, text, text[:200]), Stated(QUESTION, rf"${text} = \boxed{{{text}}}$", text)]
    assert len(rate_quality(stated)) == len(stated)
