import time
from fractions import Fraction
from random import Random

import pytest
import sympy

from pipeline.config import EmbeddedSetsConfig
from pipeline.data import arithmetic, operations, stories
from pipeline.questions.computed import Computation, compute, solution_holds

STORY = "Mia has 5 jars with 11 stones in each jar. Mia now has 2 times as many stones. How many stones does Mia have?"
ROWS = {
    "arithmetic": arithmetic.arithmetic_rows,
    "operations": operations.operations_rows,
    "stories": stories.story_rows,
}


def test_a_story():
    assert compute(STORY) == Computation("stories", "110", 2, 110, False, ("5 * 11 = 55", "55 * 2 = 110"))


@pytest.mark.parametrize(
    ("statement", "answer", "largest", "steps"),
    [
        ("What is 3 + 4 - 2?", "5", 7, ("3 + 4 = 7", "7 - 2 = 5")),
        ("What is 3 - 8 + 9?", "4", 9, ("3 - 8 = -5", "-5 + 9 = 4")),
        ("What is -3 - -8?", "5", 8, ("-3 - -8 = 5",)),
        ("What is 3 + 4 * 5?", "23", 23, ("4 * 5 = 20", "3 + 20 = 23")),
        ("Calculate (3 + 4) * 5.", "35", 35, ("3 + 4 = 7", "7 * 5 = 35")),
        ("What is $12 \\div 4$?", "3", 12, ("12 / 4 = 3",)),
        ("What is 37 modulo 5?", "2", 37, ("37 modulo 5 = 2",)),
        ("What is the largest of 37, 25 and 81?", "81", 81, ("max(37, 25) = 37", "max(37, 81) = 81")),
    ],
)
def test_a_sum(statement, answer, largest, steps):
    assert compute(statement) == Computation("arithmetic", answer, len(steps), largest, False, steps)
    assert solution_holds(statement, "\n".join(steps))


@pytest.mark.parametrize(
    ("statement", "answer", "num_operations", "largest"),
    [
        ("Solve for x: 3x + 5 = 20", "x = 5", 2, 20),
        ("If 2(x-3)=10, what is x?", "x = 8", 2, 10),
        ("If $2(x-3) = 10$, what is the value of $x$?", "x = 8", 2, 10),
        ("Solve 2n - 3 = n + 4 for n.", "n = 7", 3, 7),
        ("Find the value of y such that y/4 + 2 = 3.", "y = 4", 2, 4),
        ("What is x if x = 40 - 3?", "x = 37", 1, 40),
        ("Solve for x: 2x = 7", "x = 7/2", 1, 7),
        ("Solve for x: x^2 - 6x + 9 = 0", "x = 3", 4, 9),
        ("What value of x satisfies (x+2)^2 = x^2 + 24?", "x = 5", 4, 24),
    ],
)
def test_an_equation(statement, answer, num_operations, largest):
    computation = Computation("equation", answer.split()[-1], num_operations, largest, False, (answer,))
    assert compute(statement) == computation


@pytest.mark.parametrize(
    "statement",
    [
        "What is 5?",
        "What is 5 + 0?",
        "What is 5 * 1?",
        "What is 5 - 5?",
        "What is 8 + 3 - 3?",
        "What is the largest of 7 and 7?",
        "Solve for x: x = 5",
        "Solve for x: x + 0 = 5",
        "Solve for x: 1x + 3 = 5",
        "Mia has 5 stones. How many stones does Mia have?",
    ],
)
def test_a_problem_with_nothing_to_compute_is_trivial(statement):
    computation = compute(statement)
    assert computation and computation.is_trivial


@pytest.mark.parametrize(
    "statement",
    [
        "What is 7 / 2?",
        "What is 7 / 0?",
        "What is 7 modulo 0?",
        "What is 3 + x?",
        "What is 3! + 4?",
        "What is 2^10?",
        "What is 1.5 + 2?",
        "What is the capital of France?",
        "What is the largest of 7?",
        "3 + 4",
        "What is 3 + 4? The answer is 7.",
        "Solve for x: x^2 = 9",
        "Solve for x: x^2 = -9",
        "Solve for x: x^3 = 8",
        "Solve for x: 3x = 3x",
        "Solve for x: 3x = 3x + 2",
        "Solve for x: x + y = 4",
        "Solve for x: 2/x = 4",
        "Solve for x: 2^x = 8",
        "Solve for x: x/0 = 8",
        "Solve for x: x = 3 = 4",
        "Solve for x: sin(x) = 0",
        "Solve for e: 2e = 6",
        "Find all primes below 10.",
        "",
    ],
)
def test_other_problems_cannot_be_computed(statement):
    assert compute(statement) is None
    assert not solution_holds(statement, "7")


@pytest.mark.parametrize("name", ROWS)
def test_the_embedded_sets_are_computed_and_their_solutions_hold(name):
    rows = ROWS[name](EmbeddedSetsConfig(train_per_level=60, worked_per_level=[60] * 5), "train")
    for row in rows:
        computation = compute(row["question"])
        assert computation and computation.answer == row["answer"], row
        if not computation.is_trivial:
            assert solution_holds(row["question"], row["solution"]), row
            assert not solution_holds(row["question"], row["solution"] + "0")
            assert not solution_holds(row["question"], "")


def test_equations_are_solved_as_sympy_solves_them():
    random, x = Random(5), sympy.Symbol("x")
    num_unique = 0
    for _ in range(100):
        a, b, c, d = (random.randint(-2, 2) for _ in range(4))
        polynomial = sympy.Poly(a * (x + b) ** 2 + c * x - abs(d), x)
        roots = set() if polynomial.is_ground else set(sympy.real_roots(polynomial))
        statement = f"Solve for x: {a}(x + {b})^2 + {c}x = {abs(d)}"
        computation = compute(statement)
        assert (computation is not None) == (len(roots) == 1), statement
        if computation:
            num_unique += 1
            assert Fraction(computation.answer) == Fraction(str(roots.pop())), statement
    assert num_unique >= 10


@pytest.mark.parametrize(
    ("statement", "solution", "holds"),
    [
        (STORY, "5 * 11 = 55\n55 * 2 = 110", True),
        (STORY, "\n 5 * 11  = 55 \n55 * 2 = 110\n", True),
        (STORY, "5 * 11 = 55\n55 * 2 = 111", False),
        (STORY, "5 * 11 = 55", False),
        (STORY, "55 * 2 = 110", False),
        (STORY, "55 * 2 = 110\n5 * 11 = 55", False),
        (STORY, "5 * 11 = 55\n55 * 2 = 110\n110 - 10 = 100", False),
        (STORY, "110 = 110", False),
        (STORY, "110", False),
        (STORY, "", False),
        ("What is 37 + 25?", "37 + 25 = 62", True),
        ("What is 37 + 25?", "37 + 20 = 57\n57 + 5 = 62", True),
        ("What is 37 + 25?", "62 = 62", False),
        ("What is 37 + 25?", "60 + 2 = 62", False),
        ("What is 3 + 4 - 2?", "3 + 4 - 2 = 5", True),
        ("What is 5?", "", False),
        ("Solve for x: 3x + 5 = 20", "3x = 15\nx = 5", True),
        ("Solve for x: 3x + 5 = 20", "3x = 20 - 5\n3x = 15\nx = 15/3\nx = 5", True),
        ("Solve for x: 3x + 5 = 20", "x = 5", False),
        ("Solve for x: 3x + 5 = 20", "x = 5\nx = 5", False),
        ("Solve for x: 3x + 5 = 20", "15 = 15\nx = 5", False),
        ("Solve for x: 3x + 5 = 20", "3x = 16\nx = 5", False),
        ("Solve for x: 3x + 5 = 20", "3y = 15\nx = 5", False),
        ("Solve for x: 3x + 5 = 20", "3x = 15\nx = 6", False),
        ("Solve for x: 3x + 5 = 20", "3x = 15", False),
        ("Solve for x: 3x + 5 = 20", "", False),
        ("Solve for x: 3x + 5 = 20", "9^9^9^9 = x\nx = 5", False),
    ],
)
def test_a_worked_solution_holds_only_if_it_leads_to_the_answer(statement, solution, holds):
    assert solution_holds(statement, solution) is holds


@pytest.mark.parametrize(
    "text",
    [
        "What is " + "1" * 10_000 + "?",
        "What is " + "1" * 900 + " + 2?",
        "What is 9^9^9^9?",
        "What is 1e99 + 2?",
        "What is " + "(" * 90 + "2 + 3" + ")" * 90 + "?",
        "What is " + "2 * " * 200 + "3?",
        "What is " + "-" * 900 + "3?",
        "What is \u0663 + \u0664?",
        "What is \uff13 + \uff14?",
        "Solve for x: 9999999^x = 2",
        "Solve for x: x^(2^(2^9)) = 2",
        "Solve for x: " + "(x + 2)" * 30 + " = 0",
        "Solve for x: " + "(" * 90 + "x" + ")" * 90 + " = 3",
        "Solve for x: " + "x" * 900 + " = 3",
        "Solve for \u0445: 3\u0445 = 12",
        "If " + "= " * 400 + ", what is x?",
        "Solve " * 160,
        "\u0000" * 900,
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_hostile_texts_are_refused_at_once(text):
    started = time.perf_counter()
    assert compute(text) is None
    assert not solution_holds(text, text)
    assert not solution_holds("Solve for x: 3x = 12", f"{text}\nx = 4")
    assert not solution_holds(STORY, text * 100)
    assert time.perf_counter() - started < 0.5
