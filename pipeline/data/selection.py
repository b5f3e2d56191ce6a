"""Chooses problems: a stage's filter, problems per level, and the natural order of level names."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pipeline.config import ProblemFilter
from pipeline.data.table import heads, take
from pipeline.seeds import derive_seed
from pipeline.types import Problem, ProblemHead

Item = TypeVar("Item", Problem, ProblemHead)
Problems = TypeVar("Problems", bound=Sequence[Problem])


def select_problems(problems: Iterable[Item], chosen: ProblemFilter) -> list[Item]:
    """The problems that pass a stage's filter, in data set order."""
    kept, per_level = [], dict[str | None, int]()
    for problem in problems:
        if chosen.levels is not None and problem.level not in chosen.levels:
            continue
        if chosen.types is not None and problem.type not in chosen.types:
            continue
        if chosen.sources is not None and problem.source not in chosen.sources:
            continue
        per_level[problem.level] = per_level.get(problem.level, 0) + 1
        if chosen.max_per_level is None or per_level[problem.level] <= chosen.max_per_level:
            kept.append(problem)
    return kept


def choose_problems(problems: Problems, chosen: ProblemFilter, seed: int, *, with_solution: bool) -> Problems:
    """A stage's own problems, in data set order.

    A level with more than ``max_per_level`` problems contributes a random subset, the same in every stage and order:
    data sets are often sorted, and the first 100 problems of each level of MATH are all algebra.

    Args:
        with_solution: only problems with a worked solution, as SFT needs them.
    """
    candidates = (head for head in heads(problems) if head.has_solution or not with_solution)
    passing = select_problems(candidates, chosen.model_copy(update={"max_per_level": None}))
    shuffled = sorted(passing, key=lambda head: derive_seed(seed, "choose", head.id))
    kept = {head.id for head in select_problems(shuffled, chosen)}
    return take(problems, [head.row for head in passing if head.id in kept])


def first_per_level(problems: Sequence[Problem], count: int) -> list[Problem]:
    """The first ``count`` problems of every level, in order, so that every evaluation uses the same ones."""
    taken: dict[str | None, int] = {}
    kept = []
    for problem in problems:
        taken[problem.level] = taken.get(problem.level, 0) + 1
        if taken[problem.level] <= count:
            kept.append(problem)
    return kept


def natural_order(text: str) -> list[tuple[int, str]]:
    """A sort key that puts ``level 10`` after ``level 9``."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text)]
