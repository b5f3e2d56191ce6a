"""Choosing the problems of a stage and of an evaluation, and the natural order of levels."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import ProblemFilter
from pipeline.data.selection import choose_problems, first_per_level, natural_order, select_problems
from pipeline.types import Problem
from tests.support.properties import examples


def problem(
    id: str, level: str | None = None, type: str | None = None, source: str = "", solved: bool = True
) -> Problem:
    solution = "so 7" if solved else None
    return Problem(id, ({"role": "user", "content": id},), "7", solution, level=level, type=type, source=source)


LEVELS = st.sampled_from([None, "1", "2", "10"])
TYPES = st.sampled_from([None, "a", "b"])
SETS = st.lists(st.builds(problem, st.uuids().map(str), LEVELS, TYPES, st.sampled_from(["x", "y"]), st.booleans()))
FILTERS = st.builds(
    ProblemFilter,
    levels=st.none() | st.lists(st.sampled_from(["1", "2", "9"])),
    types=st.none() | st.lists(st.sampled_from(["a", "c"])),
    sources=st.none() | st.lists(st.sampled_from(["x", "z"])),
    max_per_level=st.none() | st.integers(1, 3),
)


def ids(problems: list[Problem]) -> list[str]:
    return [problem.id for problem in problems]


# Filters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "expected"), [(0, ""), (1, "abe"), (2, "abcef"), (9, "abcdef")])
def test_the_first_of_every_level_in_order(count, expected):
    levels = {"a": "1", "b": "2", "c": "1", "d": "1", "e": None, "f": None}
    problems = [problem(id, level) for id, level in levels.items()]
    assert "".join(p.id for p in first_per_level(problems, count)) == expected


@given(problems=SETS, chosen=FILTERS)
@examples()
def test_a_filter_keeps_order_and_keeps_what_matches_up_to_the_limit(problems, chosen):
    kept = select_problems(problems, chosen)
    assert kept == [p for p in problems if p in kept]  # a subsequence
    assert select_problems(kept, chosen) == kept
    for p in kept:
        assert chosen.levels is None or p.level in chosen.levels
        assert chosen.types is None or p.type in chosen.types
        assert chosen.sources is None or p.source in chosen.sources
    unlimited = select_problems(problems, chosen.model_copy(update={"max_per_level": None}))
    limit = len(problems) if chosen.max_per_level is None else chosen.max_per_level
    matching = Counter(p.level for p in unlimited)
    assert Counter(p.level for p in kept) == {level: min(count, limit) for level, count in matching.items()}


@given(problems=SETS, chosen=FILTERS, seed=st.integers(0, 9), solved_only=st.booleans())
@examples()
def test_a_stages_choice_depends_on_seed_and_ids_but_not_on_the_order_of_the_data(problems, chosen, seed, solved_only):
    kept = choose_problems(problems, chosen, seed, with_solution=solved_only)
    assert kept == [p for p in problems if p in kept]
    assert all(p.solution is not None for p in kept) or not solved_only
    candidates = [p for p in problems if p.solution is not None or not solved_only]
    as_many = select_problems(candidates, chosen)
    assert Counter(p.level for p in kept) == Counter(p.level for p in as_many)
    shuffled = random.Random(seed).sample(problems, len(problems))
    assert set(ids(choose_problems(shuffled, chosen, seed, with_solution=solved_only))) == set(ids(kept))


def test_a_choice_is_spread_over_the_data_and_another_seed_chooses_others():
    problems = [problem(str(index), "1") for index in range(1000)]
    chosen = ProblemFilter(max_per_level=100)
    first, second = (ids(choose_problems(problems, chosen, seed, with_solution=True)) for seed in (0, 1))
    assert first == sorted(first, key=int) and len(first) == len(second) == 100
    assert first != second and first != ids(problems[:100])
    assert 25 < sum(int(id) < 500 for id in first) < 75


# Natural order -----------------------------------------------------------------------------------


def test_levels_sort_as_people_count():
    levels = ["Level 10", "Level 9", "level 2", "Level 1b", "Level 1", "10", "9", ""]
    expected = ["", "9", "10", "Level 1", "Level 1b", "Level 9", "Level 10", "level 2"]
    assert sorted(levels, key=natural_order) == expected


@given(st.lists(st.text(alphabet="a7²٣³½०\n-. 1", max_size=6) | st.text(max_size=6), max_size=8))
@examples()
def test_any_texts_have_one_order(texts):
    in_order = sorted(set(texts), key=natural_order)
    assert sorted(reversed(in_order), key=natural_order) == in_order  # no two different texts are equal
    for low, high in pairwise(in_order):
        assert natural_order(low) < natural_order(high)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from(["level {}", "{}", "{} terms", "a{}b"]))
@examples()
def test_numbers_sort_as_numbers(low, high, pattern):
    is_lower = natural_order(pattern.format(low)) < natural_order(pattern.format(high))
    assert is_lower == (low < high)


def test_numbers_of_any_length_have_an_order():
    assert natural_order("9" * 5000) < natural_order("1" + "0" * 5000)
