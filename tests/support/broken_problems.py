"""Problems of our own, and ways to break any problem."""

import random
import re
from collections.abc import Callable
from dataclasses import replace

from pipeline.questions.ratings.quality import Stated
from pipeline.verifier.places.boxes import last_closed_boxes

HONEST = [
    Stated(statement, solution, answer)
    for statement, solution, answer in (
        (
            r"What is the sum of the first $10$ positive integers $1 + 2 + \cdots + 10$?",
            r"The sum is $\frac{10 \cdot 11}{2} = \boxed{55}$.",
            "55",
        ),
        (
            r"Find the largest root of $x^2 - 7x + 12 = 0$.",
            r"We factor: $(x - 3)(x - 4) = 0$, so $x = 3$ or $x = 4$. The largest root is $\boxed{4}$.",
            "4",
        ),
        (
            r"A right triangle has legs of length $5$ and $12$. Compute the length of its hypotenuse.",
            r"By Pythagoras it is $\sqrt{5^2 + 12^2} = \sqrt{169} = \boxed{13}$.",
            "13",
        ),
        (
            r"How many subsets does the set $\{1, 2, 3, 4, 5, 6\}$ have?",
            r"Each element is in a subset or not, which gives $2^6 = \boxed{64}$ subsets.",
            "64",
        ),
        (
            r"Simplify $\frac{1}{2} + \frac{1}{3}$. Write your answer as a common fraction.",
            r"With the common denominator $6$ we get $\frac{3}{6} + \frac{2}{6} = \boxed{\frac{5}{6}}$.",
            r"\frac{5}{6}",
        ),
        (
            r"What is the remainder when $2^{10}$ is divided by $7$?",
            r"Since $2^{10} = 1024 = 146 \cdot 7 + 2$, the remainder is $1024 - 146 \cdot 7 = \boxed{2}$.",
            "2",
        ),
        (
            r"Two fair dice are rolled. What is the probability that the sum of the two numbers is $\text{seven}$?",
            r"There are $6$ such pairs of $36$, so the probability is $\frac{6}{36} = \boxed{\frac{1}{6}}$.",
            r"\frac{1}{6}",
        ),
        (
            r"Let $f(x) = 3x + 1$. Find $f(f(2))$.",
            r"We have $f(2) = 7$, hence \[f(f(2)) = 3 \cdot 7 + 1 = \boxed{22}.\]",
            "22",
        ),
    )
]


def _wrong(answer: str, rng: random.Random) -> str:
    """The answer with another number in it."""
    numbers = list(re.finditer(r"[0-9]+", answer))
    if not numbers:
        return "7"
    chosen = rng.choice(numbers)
    return f"{answer[: chosen.start()]}{int(chosen[0]) + rng.choice([1, 2, 10])}{answer[chosen.end() :]}"


def _wrong_box(problem: Stated, rng: random.Random) -> Stated | None:
    if last_closed_boxes(problem.solution) != problem.answer:
        return None
    wrong = _wrong(problem.answer, rng)
    head, box, rest = problem.solution.rpartition("\\boxed")
    return replace(problem, solution=head + box + rest.replace(problem.answer, wrong, 1), answer=wrong) if box else None


def _cut(text: str, rng: random.Random) -> str:
    return text[: int(len(text) * rng.uniform(0.3, 0.95))].rstrip()


def _without_one(text: str, sign: str, rng: random.Random) -> str | None:
    places = [match.start() for match in re.finditer(re.escape(sign), text)]
    place = rng.choice(places) if places else None
    return None if place is None else text[:place] + text[place + len(sign) :]


def _broken_latex(problem: Stated, rng: random.Random) -> Stated | None:
    signs = ["$", "{", "}", r"\right", r"\end{"]
    rng.shuffle(signs)
    broken = next(filter(None, (_without_one(problem.statement, sign, rng) for sign in signs)), None)
    return replace(problem, statement=broken) if broken else None


def _misspelt(problem: Stated, rng: random.Random) -> Stated | None:
    names = list(re.finditer(r"\\[a-zA-Z]{3,}", problem.statement))
    if not names:
        return None
    place = rng.randrange((name := rng.choice(names)).start() + 1, name.end())
    return replace(problem, statement=problem.statement[:place] + problem.statement[place + 1 :])


WAYS: dict[str, Callable[[Stated, random.Random], Stated | None]] = {
    "answer removed": lambda problem, _: replace(problem, answer=""),
    "wrong answer": lambda problem, rng: replace(problem, answer=_wrong(problem.answer, rng)),
    "truncated": lambda problem, rng: replace(problem, statement=_cut(problem.statement, rng)),
    "duplicated": lambda problem, _: problem,
    "LaTeX broken": _broken_latex,
}
"""The ways that ratings are judged by. None: the problem has nothing to break in this way."""
HARDER_WAYS: dict[str, Callable[[Stated, random.Random], Stated | None]] = {
    "wrong box, answer read from it": _wrong_box,
    "solution truncated": lambda p, rng: replace(p, solution=_cut(p.solution, rng)) if p.solution else None,
    "a letter of a command missing": _misspelt,
}
