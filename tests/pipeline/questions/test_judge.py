import pytest

from pipeline.questions.computed import Computation
from pipeline.questions.judge import difficulty_value, key_holds, verdict_of
from pipeline.questions.written import WrittenProblem
from tests.support.questions import completion_text, reward_context, writing_group

STATEMENT = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
WRITTEN = WrittenProblem(STATEMENT, "5 * 11 = 55", "55")
ONE_STEP = Computation("stories", "55", 1, 55, False, ("5 * 11 = 55",))


def config(**settings):
    return reward_context(**settings).config.questions


def task(level="1"):
    return writing_group(level=level).problem


@pytest.mark.parametrize(
    ("solution", "answer", "holds"),
    [
        ("5 * 11 = 55", "55", True),
        ("5 * 11 = 55", "55.0", True),
        ("5 * 11 = 55", "0", False),
        ("5 * 11 = 56", "56", False),
        ("5 + 11 = 55", "55", False),
        ("It is 55.", "55", False),
    ],
)
def test_a_key_holds_if_answer_and_lines_are_the_computed_ones(solution, answer, holds, key):
    key[STATEMENT] = ONE_STEP
    assert key_holds(WrittenProblem(STATEMENT, solution, answer), config()) is holds


@pytest.mark.parametrize("must_compute", [True, False])
def test_a_statement_that_cannot_be_computed_holds_unless_it_must_be(must_compute, key):
    assert key_holds(WRITTEN, config(must_compute=must_compute)) is not must_compute
    assert difficulty_value(task(), WRITTEN, config()) == 1


@pytest.mark.parametrize(
    ("statement", "solution", "answer"),
    [
        ("Mia has 5 stones. Mia gives away 9 stones. How many stones does Mia have now?", "5 + 9 = 14", "14"),
        ("What is 7 / 2?", "7 / 2 = 9", "9"),
        ("What is 2^5?", "2 ^ 5 = 0", "0"),
        ("What is 3.5 + 2.5?", "3.5 + 2.5 = 0", "0"),
        ("What is 9999999 + 1?", "9999999 + 1 = 0", "0"),
        ("What is 12 \u00d7 4?", "12 * 4 = 50", "50"),
        ("Solve for x: x^2 = 9", "x * x = 9", "7"),
        ("Solve for x: x^3 = 8", "x = 0", "0"),
        ("Solve for x: 6/x = 2", "x = 0", "0"),
        ("Solve for x: x + 1 = x + 2", "x = 0", "0"),
        ("Solve for x: 12/2x = 3", "6x = 3\nx = 1/2", "1/2"),
        ("What is -7 mod 3?", "-7 mod 3 = -1", "-1"),
        ("What is 5 + 7 mod 4?", "5 + 7 mod 4 = 8", "8"),
    ],
)
@pytest.mark.parametrize("must_compute", [True, False])
def test_a_wrong_or_unknown_key_of_a_sum_story_or_equation_never_holds(statement, solution, answer, must_compute):
    assert not key_holds(WrittenProblem(statement, solution, answer), config(must_compute=must_compute))


@pytest.mark.parametrize(
    ("statement", "value"),
    [("What is 7 / 0?", 0), ("Solve for x: x^2 = 9", 0), ("What is the area of a circle?", 1)],
)
def test_what_cannot_be_worked_out_has_no_difficulty(statement, value):
    assert difficulty_value(task("hard"), WrittenProblem(statement, "-", "3"), config()) == value


@pytest.mark.parametrize(
    ("computation", "level", "value"),
    [
        (ONE_STEP, "1", 1.0),
        (ONE_STEP, "2", 0.0),
        (ONE_STEP, "hard", 1.0),
        (Computation("stories", "10", 1, 10, True, ("10 * 1 = 10",)), "1", 0.0),
        (Computation("stories", "0", 1, 40, False, ("40 - 40 = 0",)), "1", 0.0),
        (Computation("stories", "61", 1, 61, False, ("50 + 11 = 61",)), "1", 0.0),  # beyond 60
        (Computation("stories", "15", 1, 15, False, ("7 + 8 = 15",)), "1", 0.5),  # 15 of 30, half the bound
        (Computation("stories", "2", 1, 4, False, ("4 - 2 = 2",)), "1", 4 / 30),
        (Computation("stories", "2", 1, 2, False, ("4 / 2 = 2",)), "1", 4 / 30),
        (Computation("stories", "1", 1, 2, False, ("2 - 1 = 1",)), "1", 0.1),  # the floor, above 2 / 30
        (Computation("equation", "3", 1, 30, False, ("x = 3",)), "1", 1.0),  # its step is no measure
        (Computation("stories", "2", 2, 60, False, ("60 / 30 = 2", "2 + 4 = 6")), "2", 0.6),  # (1 + 6/30) / 2
    ],
)
def test_difficulty_is_the_operations_asked_for_and_the_size_of_the_numbers(computation, level, value, key):
    key[STATEMENT] = computation
    bounds = {"max_numbers": {"1": 60, "2": 60}}
    assert difficulty_value(task(level), WRITTEN, config(**bounds)) == pytest.approx(value)


@pytest.mark.parametrize(("largest", "passes"), [(14, False), (15, True), (60, True), (61, False)])
def test_numbers_may_be_too_small_for_a_level(largest, passes, key):
    key[STATEMENT] = Computation("stories", str(largest), 1, largest, False, (f"4 + {largest - 4} = {largest}",))
    settings = config(max_numbers={"1": 60}, min_number_frac=0.25)
    assert (difficulty_value(task("1"), WRITTEN, settings) > 0) == passes


def test_a_level_without_a_bound_takes_any_size(key):
    key[STATEMENT] = Computation("stories", "9", 1, 9, False, ("4 + 5 = 9",))
    assert difficulty_value(task(), WRITTEN, config()) == 1


@pytest.mark.parametrize(
    ("text", "level", "outcome"),
    [
        (completion_text(STATEMENT, "5 * 11 = 55", "55"), "1", "correct"),
        (completion_text(STATEMENT, "5 * 11 = 55", "0"), "1", "incorrect"),
        (completion_text(STATEMENT, "5 * 11 = 55", "55"), "2", "incorrect"),
        (completion_text(STATEMENT, "5 * 11 = 55", "??"), "1", "unparsed"),
        ("I do not know.", "1", "unparsed"),
    ],
)
def test_the_verdict_is_that_of_the_gate(text, level, outcome, key):
    key[STATEMENT] = ONE_STEP
    verdict = verdict_of(task(level), text, config())
    assert verdict.outcome == outcome
    assert verdict.answer == {"correct": "55", "unparsed": None}.get(outcome, verdict.answer)
