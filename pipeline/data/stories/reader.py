"""Reads a story back: its answer, the steps to it and their size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Story:
    """A story that was read, worked out."""

    answer: int
    steps: tuple[str, ...]
    num_operations: int
    largest: int
    is_trivial: bool


def read_story(statement: str) -> Story | None:
    """None: not a story of the grammar, or one that contradicts itself."""
    return None
