"""Answers of written problems, computed from their statements alone. Nothing here evaluates a text as code."""

from dataclasses import dataclass
from typing import Literal

from pipeline.data.stories import read_story


@dataclass(frozen=True, slots=True)
class Computation:
    """A problem worked out independently of its writer."""

    family: Literal["stories", "arithmetic", "equation"]
    answer: str
    num_operations: int
    """Operations that the answer needs, without trivial ones. This is the difficulty."""
    largest: int
    """The largest absolute number in the statement or in a step."""
    is_trivial: bool
    """Some operation has 0 or 1 as operand, or nothing is to be computed."""
    steps: tuple[str, ...]
    """Expected lines of the solution, such as ``5 * 11 = 55``."""


def compute(statement: str) -> Computation | None:
    """None: not of a kind that can be computed."""
    if story := read_story(statement):
        return Computation(
            "stories", str(story.answer), story.num_operations, story.largest, story.is_trivial, story.steps
        )
    return None


def solution_holds(statement: str, solution: str) -> bool:
    """True if the lines of a worked solution are those of ``compute``."""
    computation = compute(statement)
    return computation is not None and tuple(solution.split("\n")) == computation.steps
