"""Chooses problems: a stage's filter, problems per level, and the natural order of level names."""

import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

from pipeline.config import ProblemFilter
from pipeline.data.table import Problems, heads, take
from pipeline.seeds import derive_seed
from pipeline.types import Problem, ProblemHead

Item = TypeVar("Item", Problem, ProblemHead)


def select_problems(problems: Iterable[Item], chosen: ProblemFilter) -> list[Item]:
    """The problems that pass a stage's filter, in data set order. Of each level, the first ``max_per_level``."""
    passing = [problem for problem in problems if _passes(problem, chosen)]
    return passing if chosen.max_per_level is None else first_per_level(passing, chosen.max_per_level)


def choose_problems(problems: Problems, chosen: ProblemFilter, seed: int, *, with_solution: bool) -> Problems:
    """A stage's own problems, in data set order.

    A level with more than ``max_per_level`` problems contributes a random subset, the same in every stage and order:
    data sets are often sorted, and the first 100 problems of each level of MATH are all algebra.

    Args:
        with_solution: only problems with a worked solution, as SFT needs them.
    """
    candidates = (head for head in heads(problems) if head.has_solution or not with_solution)
    passing = [head for head in candidates if _passes(head, chosen)]
    shuffled = sorted(passing, key=lambda head: derive_seed(seed, "choose", head.id))
    kept = {head.id for head in select_problems(shuffled, chosen)}
    return take(problems, [head.row for head in passing if head.id in kept])


def first_per_level(problems: Iterable[Item], count: int) -> list[Item]:
    """The first ``count`` problems of every level, in order, so that every evaluation uses the same ones."""
    taken: Counter[str | None] = Counter()
    kept = []
    for problem in problems:
        taken[problem.level] += 1
        if taken[problem.level] <= count:
            kept.append(problem)
    return kept


def natural_order(text: str) -> list[tuple[Decimal, str]]:
    """A sort key that puts ``level 10`` after ``level 9``."""
    # Decimal, because int raises ValueError for numbers with thousands of digits.
    return [(Decimal(part) if part.isdecimal() else Decimal(0), part) for part in re.split(r"(\d+)", text)]


def _passes(problem: Problem | ProblemHead, chosen: ProblemFilter) -> bool:
    conditions = ((problem.level, chosen.levels), (problem.type, chosen.types), (problem.source, chosen.sources))
    return all(allowed is None or value in allowed for value, allowed in conditions)
