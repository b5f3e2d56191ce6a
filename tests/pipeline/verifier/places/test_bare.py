"""A completion that is nothing but an answer is graded like the same answer in a box; prose is not."""

import pytest

from pipeline.verifier import Verdict, extract
from tests.pipeline.verifier.test_grade import RIGHT, WRONG
from tests.support.verifier import answered, stored_rows

ANSWERS = [
    "√2", "1, -3", "x=3", "−5", "\\frac{1}{2}", "$\\frac{1}{2}$", "\\(x = 3\\)", "3/4", "2^{10}", "x^2 - 1",
    "y = 2x + 1", "(1, 2)", "[0, \\infty)", "\\{1, 2\\}", "x > 3", "-1 \\le x < 2", "3:4", "3 to 4", "1011_2", "50%",
    "$5", "5 cm^2", "12\\pi \\text{ cm}^2", "72 clips", "2 hours 30 minutes", "3:30 p.m.", "twenty-one", "\\pm 2",
    "x = 1 or x = 2", "1 and 2", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\infty", "negative infinity",
    "3 + 4i", "\\text{yes}", "x \\equiv 3 \\pmod 7", "3 mod 7", "x**2 + y**k", "y = 3 when x = 2", "5 out of 6",
    "12,34,567", "B. Paris", "C. \\frac{1}{2}", "(C) 12", "\\textbf{(C)}\\ 12",
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_one_line_that_reads_as_an_answer_is_the_answer(answer):
    assert extract(answer) == (answer if answer == "$5" else answer.strip("$"))
    assert extract(f"\n {answer}.<|im_end|>\n") == extract(f"<think>1 + 1 = 2</think>\n\n{answer}") == extract(answer)


def test_a_bare_answer_is_not_marked_as_one():
    assert extract("x = 3", fallback=False) is None


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("(C)", "C"),
        ("**12**", "12"),
        ("$$\nx = 3\n$$", "x = 3"),
        ("3 + 4 = 7", "7"),
        ("\\(\\frac12 + \\frac13 = \\frac{5}{6}\\)", "\\frac{5}{6}"),
    ],
)
def test_marks_and_the_way_to_a_sum_are_left_out(completion, answer):
    assert extract(completion) == answer


@pytest.mark.parametrize(
    ("prose", "answer"),
    [
        ("I think it is hard", None),
        ("It is possible", None),
        ("x and y satisfy", None),
        ("Let us compute 3+4", "4"),
        ("2 apples or 3", None),
        ("or 78 cents", "78"),
        ("She has 7 eggs", "7"),
        ("5 is my guess", "5"),
        ("7 is prime and 8 is not", "8"),
        ("A dog ran 3 miles", "3"),
        ("(A) is wrong, because 3 is odd", "3"),
        ("5?", "5"),
        ("7 maybe", "7"),
        ("\\frac{1}{2}\n\\frac{1}{3} is too small, so 4", "4"),
    ],
)
def test_prose_is_no_bare_answer(prose, answer):
    assert extract(prose) == answer


@pytest.mark.parametrize(
    ("word", "gold", "outcome"),
    [
        ("Tuesday", "Tuesday", "correct"),
        ("tuesday.", "\\text{Tuesday}", "correct"),
        ("No solution", "no solutions", "correct"),
        ("Monday", "Tuesday", "unparsed"),
        ("Not Tuesday", "Tuesday", "unparsed"),
        ("Tuesday or Monday", "Tuesday", "unparsed"),
        ("It cannot be Tuesday", "Tuesday", "unparsed"),
        ("-x", "x", "incorrect"),
    ],
)
def test_words_are_an_answer_when_they_are_all_there_is_and_equal_the_gold(word, gold, outcome, grader):
    assert grader.grade(word, gold).outcome == outcome


def test_answers_stand_bare_as_they_do_in_a_section(grader):
    """The tables of test_grade.py and the answers of the labelled pairs. A brace that never opened is no expression."""
    pairs = [(row[0], row[1]) for row in [*RIGHT, *WRONG] if "boxed" not in row[0]]
    pairs += [
        (answer, row["gold"]) for row in stored_rows("graded_pairs.jsonl") if (answer := extract(row["completion"]))
    ]
    bare = grader.grade_batch(pairs)
    marked = grader.grade_batch([(answered(answer), gold) for answer, gold in pairs])
    differ = [pair for pair, a, b in zip(pairs, bare, marked, strict=True) if is_right(a) != is_right(b)]
    assert len(pairs) > 1400 and differ == []


def is_right(verdict: Verdict) -> bool:
    return verdict.outcome == "correct"
