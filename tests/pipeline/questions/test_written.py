import time

import pytest

from pipeline.questions.written import Malformed, WrittenProblem, read_written
from tests.support.questions import completion_text

STATEMENT = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
HONEST = completion_text(STATEMENT, "5 * 11 = 55", "55")


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
        (HONEST.replace("problem>", "@").replace("solution>", "problem>").replace("@", "solution>"), "text outside the tags"),
        (completion_text("", "5 * 11 = 55", "55"), "empty statement"),
        (completion_text("...?", "5 * 11 = 55", "55"), "empty statement"),
        (completion_text(STATEMENT, "", "55"), "empty solution"),
        (completion_text(STATEMENT, " - ", "55"), "empty solution"),
        (completion_text(STATEMENT, "5 * 11 = 55", ""), "empty answer"),
        (completion_text(STATEMENT, "5 * 11 = 55", "?"), "empty answer"),
        (completion_text(STATEMENT, "5 * 11 = 55", "٥٥"), "digits of another script in the answer"),
        (completion_text(STATEMENT, "5 * 11 = 55", "５５"), "digits of another script in the answer"),
        (completion_text(STATEMENT, "5 * 11 = 55", "𝟓𝟓"), "digits of another script in the answer"),
        (completion_text(STATEMENT, "5 * 11 = 55", "⑤"), "digits of another script in the answer"),
        (completion_text(STATEMENT.replace("11", "११"), "5 * 11 = 55", "55"), "digits of another script in the statement"),
        (completion_text(STATEMENT, "5 * 11 = 55", "5" * 10_000), "a number of more than 30 digits in the answer"),
        (completion_text(STATEMENT.replace("5", "5" * 3000), "x = 55", "55"), "a number of more than 30 digits in the statement"),
        (completion_text("a " * 2500, "5 * 11 = 55", "55"), "statement too long"),
        ("x" * 100_000, "text too long"),
        (completion_text(STATEMENT, "5 * 11 = 55", "55 or 56"), "answer cannot be read"),
        (completion_text(STATEMENT, "5 * 11 = 55", "maybe 55"), "answer cannot be read"),
        (completion_text(STATEMENT, "5 * 11 = 55", r"\frac{55}{"), "answer cannot be read"),
        (completion_text(STATEMENT, "5 * 11 = 55", "55 @ 5 ("), "answer cannot be read"),
        (completion_text(STATEMENT, "5 * 11 = 55", "the number of stones"), "answer cannot be read"),
        (completion_text(STATEMENT, "5 * 11 = 55", "55\n56"), "answer of several lines"),
        (completion_text("55", "55 = 55", "55"), "statement empty but for its answer"),
        (completion_text("What is 55?", "55 = 55", "55"), "statement empty but for its answer"),
        (completion_text("Answer: 55.", "55 = 55", "55"), "statement empty but for its answer"),
        (completion_text(STATEMENT + " The answer is 55.", "5 * 11 = 55", "55"), "statement states its answer"),
        (completion_text(STATEMENT + " 55.", "5 * 11 = 55", "55"), "statement states its answer"),
        (completion_text(STATEMENT + r" \boxed{55}", "5 * 11 = 55", "55"), "statement states its answer"),
        (completion_text("The answer is 55. " + STATEMENT, "5 * 11 = 55", "55"), "statement states its answer"),
        (completion_text("What is 5 * 11 = 55?", "5 * 11 = 55", "55"), "statement states its answer"),
    ],
)  # fmt: skip
def test_a_malformed_text_says_why(text, reason):
    assert read_written(text) == Malformed(reason)


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("What is 3 + 4?", "7"),
        ("12 + 5", "17"),
        ("Mia has 8 stones and gives half of the stones to Leo. How many stones does Leo have? Leo had 40 before.", "4"),
        ("Solve 3x - 24 = 12 for x.", "12"),  # the right side is the answer by chance
        ("Compute $\\sqrt{45}$ in simplest radical form.", "$3\\sqrt{5}$"),
        ("Which day follows Monday?", "Tuesday"),
        ("Find the set of all $x$ with $x^2 < 4$.", "(-2, 2)"),
    ],
)  # fmt: skip
def test_honest_problems_are_well_formed(statement, answer):
    assert isinstance(read_written(completion_text(statement, "worked out", answer)), WrittenProblem)


@pytest.mark.parametrize(
    "statement",
    ["(" * 3999, "1 " * 1999, "1+" * 1999, "1(" * 1999, "= 1 " * 999, "the answer is " * 285, r"\boxed{" * 570, "[asy]?" * 660],
)  # fmt: skip
def test_hostile_statements_take_no_time(statement):
    start = time.perf_counter()
    read_written(completion_text(statement, "1+" * 3999, "55"))
    assert time.perf_counter() - start < 0.5
