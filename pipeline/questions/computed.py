"""Answers of written problems, computed from their statements alone.

There are three families: stories, sums such as ``What is 3 + 4 - 2?``, and equations in one unknown. Nothing here
evaluates a text as code. Statements are bounded before anything is worked out, so hostile ones cost no time.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pipeline.data.stories import Story, read_story
from pipeline.data.stories.reader import FORMS
from pipeline.questions.equations import Equation, asks_for_solution, read_equation
from pipeline.questions.expressions import with_plain_signs
from pipeline.questions.sums import Sum, asks_for_sum, read_sum

_MAX_CHARS = 1000
_SENTENCE_END = re.compile(r"(?<=[.?]) ")
_NUMBER = re.compile(r"(?:(?<= )-)?2+(?:[.,/]2+)*")
_Worked = Story | Sum | Equation


@dataclass(frozen=True, slots=True)
class Computation:
    """A problem worked out independently of its writer."""

    family: Literal["stories", "arithmetic", "equation"]
    answer: str
    num_operations: int
    """The difficulty: operations that are not trivial."""
    largest: int
    """The largest absolute number in the statement or in a step."""
    is_trivial: bool
    """True if there is nothing to compute, or if some operation is trivial: one with 0 or 1, or that undoes another."""
    steps: tuple[str, ...]
    """Expected lines of the solution, such as ``5 * 11 = 55``. For an equation, only the last line."""


def compute(statement: str) -> Computation | None:
    """The problem, worked out; None if it is of no kind that can be computed, or ``is_unworkable``."""
    match _worked(statement):
        case Story() as story:
            return _computation("stories", story, str(story.answer), story.steps)
        case Sum() as total:
            return _computation("arithmetic", total, str(total.answer), total.steps)
        case Equation() as equation:
            return _computation("equation", equation, str(equation.solution), (equation.last_line,))
    return None


def _computation(
    family: Literal["stories", "arithmetic", "equation"], worked: _Worked, answer: str, steps: tuple[str, ...]
) -> Computation:
    return Computation(family, answer, worked.num_operations, worked.largest, worked.is_trivial, steps)


def is_unworkable(statement: str) -> bool:
    """True for a story, sum or equation that contradicts itself, is ambiguous, or is beyond what is computed.

    Its answer is unknown although it is of a kind whose answers are known, so no key of it can be trusted.
    """
    return _worked(statement) is None and _is_of_a_kind(statement)


def _is_of_a_kind(statement: str) -> bool:
    """True for the forms of stories, sums and equations, with numbers of any size and script."""
    plain = with_plain_signs(" ".join(statement.split()))
    alike = "".join("2" if char.isnumeric() else char for char in plain)
    if asks_for_sum(alike) or asks_for_solution(alike):
        return True
    sentences = _SENTENCE_END.split(_NUMBER.sub("2", alike))
    return all(any(form.expression.fullmatch(sentence) for form in FORMS) for sentence in sentences)


def task_key(statement: str) -> tuple[str, ...] | None:
    """A key that is equal for sums and equations that ask for the same thing in other words, with terms, factors or
    sides swapped, or with another name of the unknown.

    None for what cannot be computed, and for stories, which have ``Story.key``.
    """
    worked = _worked(statement)
    return worked.key if isinstance(worked, Sum | Equation) else None


def solution_holds(statement: str, solution: str) -> bool:
    """True if the lines of a worked solution lead to the computed answer.

    For a story these are its steps, in order. For a sum they are its steps, or one of the ways in which the embedded
    sets work it out. For an equation they are one or more equations that the solution satisfies, then ``x = 5``.
    """
    if len(solution) > _MAX_CHARS or not solution.strip():
        return False
    lines = tuple(" ".join(line.split()) for line in with_plain_signs(solution).strip().split("\n"))
    match _worked(statement):
        case Story() as story:
            return lines == story.steps
        case Sum() as total:
            return "\n".join(lines) in total.solutions
        case Equation() as equation:
            return equation.is_solved_by(lines)
    return False


def _worked(statement: str) -> _Worked | None:
    return _read(with_plain_signs(" ".join(statement.split()))) if len(statement) <= _MAX_CHARS else None


@lru_cache(4096)  # every reward asks for the same statements
def _read(statement: str) -> _Worked | None:
    return read_story(statement) or read_sum(statement) or read_equation(statement)
