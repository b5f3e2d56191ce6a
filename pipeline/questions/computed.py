"""Answers of written problems, computed from their statements alone.

There are three families: stories, sums such as ``What is 3 + 4 - 2?``, and equations in one unknown. Nothing here
evaluates a text as code. Statements are bounded before anything is worked out, so hostile ones cost no time.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pipeline.data.stories import Story, read_story
from pipeline.questions.equations import Equation, read_equation
from pipeline.questions.sums import Sum, read_sum

_MAX_CHARS = 1000
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
    """There is nothing to compute, or some operation is trivial: it has 0 or 1 as an operand or undoes another, say."""
    steps: tuple[str, ...]
    """Expected lines of the solution, such as ``5 * 11 = 55``. For an equation, only the last line."""


def compute(statement: str) -> Computation | None:
    """The problem, worked out; None if it cannot be computed or contradicts itself."""
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


def solution_holds(statement: str, solution: str) -> bool:
    """True if the lines of a worked solution lead to the computed answer.

    For a story these are its steps, in order. For a sum they are its steps, or one of the ways in which the embedded
    sets work it out. For an equation they are one or more equations that the solution satisfies, then ``x = 5``.
    """
    if len(solution) > _MAX_CHARS or not solution.strip():
        return False
    lines = tuple(" ".join(line.split()) for line in solution.strip().split("\n"))
    match _worked(statement):
        case Story() as story:
            return lines == story.steps
        case Sum() as total:
            return "\n".join(lines) in total.solutions
        case Equation() as equation:
            *before, last = lines
            is_worked = bool(set(before) - {last})
            return is_worked and last == equation.last_line and all(map(equation.holds, before))
    return False


def _worked(statement: str) -> _Worked | None:
    return _read(" ".join(statement.split())) if len(statement) <= _MAX_CHARS else None


@lru_cache(4096)  # every reward asks for the same statements
def _read(statement: str) -> _Worked | None:
    return read_story(statement) or read_sum(statement) or read_equation(statement)
