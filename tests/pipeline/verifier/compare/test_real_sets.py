"""Sets of reals against the points in them: ends are integers, so halves tell all sets apart."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verifier.compare import scalars
from pipeline.verifier.compare.real_sets import is_real_set, same_real_set
from pipeline.verifier.reading.parser import read

LAWS = settings(max_examples=60, deadline=None, derandomize=True)
POINTS = [Fraction(half, 2) for half in range(-3, 27)]
Points = frozenset[Fraction]


def interval(low: int, length: int, has_low: bool, has_high: bool) -> tuple[str, Points]:
    high = low + length
    inside = {p for p in POINTS if low < p < high or (has_low and p == low) or (has_high and p == high)}
    return f"{'[' if has_low else '('}{low}, {high}{']' if has_high else ')'}", frozenset(inside)


def ray(end: int, is_left: bool, is_closed: bool) -> tuple[str, Points]:
    inside = {p for p in POINTS if (p < end if is_left else p > end) or (is_closed and p == end)}
    sign = {(True, True): "\\le", (True, False): "<", (False, True): "\\ge", (False, False): ">"}[is_left, is_closed]
    return f"x {sign} {end}", frozenset(inside)


def union(parts: list[tuple[str, Points]]) -> tuple[str, Points]:
    return " \\cup ".join(text for text, _ in parts), frozenset().union(*(points for _, points in parts))


INTERVALS = st.builds(interval, st.integers(0, 8), st.integers(1, 4), st.booleans(), st.booleans())
RAYS = st.builds(ray, st.integers(0, 8), st.booleans(), st.booleans())
UNIONS = st.lists(INTERVALS, min_size=2, max_size=4).map(union)
BETWEEN = st.tuples(INTERVALS, INTERVALS).map(lambda two: (f"{two[0][0]} \\cap {two[1][0]}", two[0][1] & two[1][1]))
WITHOUT = st.tuples(INTERVALS, INTERVALS).map(
    lambda two: (f"{two[0][0]} \\setminus {two[1][0]}", two[0][1] - two[1][1])
)


@given(UNIONS | RAYS | BETWEEN | WITHOUT, UNIONS | RAYS | BETWEEN | WITHOUT)
@LAWS
def test_sets_are_the_same_when_they_have_the_same_points(left, right):
    (left_text, left_points), (right_text, right_points) = left, right
    trees = read(left_text), read(right_text)
    assert all(map(is_real_set, trees))
    assert same_real_set(*trees, scalars.exact) == (left_points == right_points)
    assert same_real_set(trees[1], trees[0], scalars.exact) == (left_points == right_points)


@given(st.permutations(["[1, 2]", "(2, 3)", "(4, 6)", "[5, 7)", "\\{9\\}"]))
@LAWS
def test_pieces_join_in_any_order(pieces):
    union = read(" \\cup ".join(pieces))
    assert same_real_set(union, read("[1, 3) \\cup (4, 7) \\cup \\{9\\}"), scalars.exact)
