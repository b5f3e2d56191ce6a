import time

import pytest

from pipeline.questions.written import Malformed, WrittenProblem, read_written
from tests.support.questions import completion_text

STATEMENT = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
SOLUTION = "5 * 11 = 55"
HONEST = completion_text(STATEMENT, SOLUTION, "55")
SWAPPED = HONEST.replace("problem>", "@").replace("solution>", "problem>").replace("@", "solution>")


def answered(answer):
    return completion_text(STATEMENT, SOLUTION, answer)


def stated(statement):
    return completion_text(statement, SOLUTION, "55")


@pytest.mark.parametrize("around", ["", " ", "\n\n"])
def test_a_problem_is_read_from_its_tags(around):
    assert read_written(around + HONEST + around) == WrittenProblem(STATEMENT, "5 * 11 = 55", "55")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "<problem> missing"),
        (HONEST.replace("<answer>", ""), "<answer> missing"),
        (HONEST.replace("</answer>", ""), "</answer> missing"),
        (HONEST + HONEST, "<problem> repeated"),
        (HONEST + "<answer>55</answer>", "<answer> repeated"),
        (HONEST + " Great!", "text behind the answer"),
        (HONEST + "\n55", "text behind the answer"),
        ("Sure. " + HONEST, "text outside the tags"),
        (HONEST.replace("</problem>", "</problem> so"), "text outside the tags"),
        (SWAPPED, "text outside the tags"),
        (stated(""), "empty statement"),
        (stated("...?"), "empty statement"),
        (completion_text(STATEMENT, "", "55"), "empty solution"),
        (completion_text(STATEMENT, " - ", "55"), "empty solution"),
        (answered(""), "empty answer"),
        (answered("?"), "empty answer"),
        (answered("٥٥"), "digits of another script in the answer"),
        (answered("５５"), "digits of another script in the answer"),
        (answered("𝟓𝟓"), "digits of another script in the answer"),
        (answered("⑤"), "digits of another script in the answer"),
        (stated(STATEMENT.replace("11", "११")), "digits of another script in the statement"),
        (answered("5\u200b5"), "invisible characters in the answer"),
        (stated(STATEMENT + "\x00"), "invisible characters in the statement"),
        (answered("5" * 10_000), "a number of more than 30 digits in the answer"),
        (stated(STATEMENT.replace("5", "5" * 3000)), "a number of more than 30 digits in the statement"),
        (stated("a " * 2500), "statement too long"),
        ("x" * 100_000, "text too long"),
        (answered("55 or 56"), "answer cannot be read"),
        (answered("maybe 55"), "answer cannot be read"),
        (answered(r"\frac{55}{"), "answer cannot be read"),
        (answered("55 @ 5 ("), "answer cannot be read"),
        (answered("the number of stones"), "answer cannot be read"),
        (answered("55\n56"), "answer of several lines"),
        (stated("55"), "statement empty but for its answer"),
        (stated("What is 55?"), "statement empty but for its answer"),
        (stated("Answer: 55."), "statement empty but for its answer"),
        (stated(STATEMENT + " The answer is 55."), "statement states its answer"),
        (stated(STATEMENT + " 55."), "statement states its answer"),
        (stated(STATEMENT + r" \boxed{55}"), "statement states its answer"),
        (stated("The answer is 55. " + STATEMENT), "statement states its answer"),
        (stated("What is 5 * 11 = 55?"), "statement states its answer"),
        (stated("5 * (9 + 2) = $55 is what?"), "statement states its answer"),
    ],
)
def test_a_malformed_text_says_why(text, reason):
    assert read_written(text) == Malformed(reason)


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("What is 3 + 4?", "7"),
        ("12 + 5", "17"),
        (
            "Mia has 8 stones and gives half of the stones to Leo. How many stones does Leo have? Leo had 40 before.",
            "4",
        ),
        ("Solve 3x - 24 = 12 for x.", "12"),  # the right side is the answer by chance
        ("Solve 2 * x + 3 * 4 = 12 for x.", "12"),
        ("Find a1 with x3 + 4 = 7 in it.", "7"),
        ("Compute $\\sqrt{45}$ in simplest radical form.", "$3\\sqrt{5}$"),
        ("Which day follows Monday?", "Tuesday"),
        ("Find the set of all $x$ with $x^2 < 4$.", "(-2, 2)"),
    ],
)
def test_honest_problems_are_well_formed(statement, answer):
    assert isinstance(read_written(completion_text(statement, "worked out", answer)), WrittenProblem)


@pytest.mark.parametrize(
    "statement",
    [
        "(" * 3999,
        "1 " * 1999,
        "1+" * 1999,
        "1(" * 1999,
        "= 1 " * 999,
        "the answer is " * 285,
        r"\boxed{" * 570,
        "[asy]?" * 660,
    ],
)
def test_hostile_statements_take_no_time(statement):
    start = time.perf_counter()
    read_written(completion_text(statement, "1+" * 3999, "55"))
    assert time.perf_counter() - start < 0.5
