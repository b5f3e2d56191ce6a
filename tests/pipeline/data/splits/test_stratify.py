"""The two sides of a split: shares, groups of the same problem, and seeds."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits.records import Record
from pipeline.data.splits.stratify import apportion, held_out_quotas, normalized, split_records
from tests.support.data import check_nothing_is_shared
from tests.support.properties import examples


def record(problem: str, level: str = "Level 1", type: str | None = None, answer: str = "1") -> Record:
    return Record(problem, f"so {answer}", answer, level, type, "made up", id=f"{problem}/{answer}")


def problems(prefix: str, count: int, level: str, type: str | None = None) -> list[Record]:
    return [record(f"{prefix}{number}", level, type) for number in range(count)]


def per_level(records: list[Record]) -> dict[str, int]:
    return dict(Counter(record.level for record in records))


SPELLINGS = ["{} + n?", "{}+N", "{} - n."]
"""Spellings of one problem."""
RECORDS = st.lists(
    st.tuples(st.integers(0, 15), st.sampled_from(SPELLINGS), st.sampled_from("123"), st.sampled_from("ab")),
    max_size=40,
    unique_by=lambda row: row[:2],
).map(lambda rows: [record(text.format(n), level, type) for n, text, level, type in rows])
FRACTIONS = st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.9])


@given(records=RECORDS, fraction=FRACTIONS, by_type=st.booleans(), seed=st.integers(0, 99))
@examples()
def test_a_split_loses_nothing_shares_nothing_and_depends_on_seed_and_rows_alone(records, fraction, by_type, seed):
    train, test = split_records(records, fraction, by_type=by_type, seed=seed)
    assert Counter(train + test) == Counter(records)
    check_nothing_is_shared(train, test)
    assert split_records(records[::-1], fraction, by_type=by_type, seed=seed) == (train, test)


@given(
    sizes=st.dictionaries(st.tuples(st.sampled_from("123"), st.sampled_from("ab")), st.integers(1, 30), min_size=1),
    fraction=FRACTIONS,
    by_type=st.booleans(),
    seed=st.integers(0, 99),
)
@examples()
def test_different_problems_are_held_out_exactly_as_the_quotas_say(sizes, fraction, by_type, seed):
    records = [r for (level, type), size in sizes.items() for r in problems(f"{level}{type} ", size, level, type)]
    _, test = split_records(records, fraction, by_type=by_type, seed=seed)
    quotas = held_out_quotas(records, fraction, by_type=by_type)
    assert Counter((r.level, str(r.type) if by_type else "") for r in test) == +quotas
    levels = Counter(r.level for r in records)
    for level, count in levels.items():
        quota = sum(number for (of_level, _), number in quotas.items() if of_level == level)
        assert abs(quota - fraction * count) < 1 or quota in (1, count - 1)
        assert count == 1 or 0 < quota < count


@given(sizes=st.dictionaries(st.text("abc", min_size=1), st.integers(0, 50)), share=st.fractions(0, 1))
@examples()
def test_shares_are_rounded_and_add_up(sizes, share):
    parts = apportion(sizes, share)
    assert sum(parts.values()) == round(sum(sizes.values()) * share)
    assert all(abs(parts[name] - size * share) < 1 for name, size in sizes.items())


def test_normalized_keeps_letters_and_digits_alone():
    assert normalized(" What is\n$X^{2} + Y$?") == normalized("what is x^2+y") == "whatisx2y"
    assert normalized("Straße ２") == "strasse2"
    assert normalized(" ?! ") == "?!"


def test_apportion_rounds_the_largest_remainders_up():
    # Of 5, 4, 4 a fifth is 1.0, 0.8, 0.8, together 2.6, so 3: the whole parts give 1, and both 0.8 are rounded up.
    assert apportion({"a": 5, "b": 4, "c": 4}, Fraction(1, 5)) == {"a": 1, "b": 1, "c": 1}
    # A quarter of 5, 6, 6 is 1.25, 1.5, 1.5, together 4.25, so 4: one of the equal remainders, the first name's.
    assert apportion({"c": 6, "b": 6, "a": 5}, Fraction(1, 4)) == {"a": 1, "b": 2, "c": 1}


def test_quotas_of_types_add_up_to_that_of_their_level():
    records = [*problems("a", 7, "1", "x"), *problems("b", 8, "1", "y"), *problems("c", 3, "2", "x")]
    # 15 and 3 rows: 3.0 and 0.6, together 3.6, so 4. Of level 1's 3: 7 / 5 = 1.4 and 8 / 5 = 1.6.
    assert held_out_quotas(records, 0.2) == {("1", ""): 3, ("2", ""): 1}
    assert held_out_quotas(records, 0.2, by_type=True) == {("1", "x"): 1, ("1", "y"): 2, ("2", "x"): 1}


def test_a_level_of_two_is_on_both_sides_and_a_single_row_is_for_training():
    records = [*problems("a", 20, "1"), *problems("b", 2, "2"), record("c", "3")]
    assert held_out_quotas(records, 0.1) == {("1", ""): 2, ("2", ""): 1, ("3", ""): 0}
    assert held_out_quotas(records, 0.9) == {("1", ""): 18, ("2", ""): 1, ("3", ""): 0}


def test_every_level_has_its_share_and_no_record_is_lost():
    records = [*problems("a", 50, "1"), *problems("b", 30, "2"), *problems("c", 20, "10")]
    train, test = split_records(records, 0.2)
    assert per_level(test) == {"1": 10, "2": 6, "10": 4}
    assert sorted(r.id for r in train + test) == sorted(r.id for r in records)
    assert [r.level for r in train[:12]] != sorted(r.level for r in train[:12])


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    records = [*problems("a", 50, "1"), *problems("b", 30, "2")]
    first = split_records(records, 0.2, seed=3)
    assert split_records(records[::-1], 0.2, seed=3) == first
    assert {r.id for r in split_records(records, 0.2, seed=4)[1]} != {r.id for r in first[1]}


def test_a_split_is_the_same_on_every_machine():
    # printf '0 split a0' | sha256sum, and so on: 7b8b, c15d, e9d4, 80b5, 9223. The two smallest are held out.
    _, test = split_records(problems("a", 5, "1"), 0.4)
    assert {r.problem for r in test} == {"a0", "a3"}


@pytest.mark.parametrize("seed", range(20))
def test_the_same_problem_stays_on_one_side(seed):
    records = problems("Find $x_", 40, "1")
    for number in range(8):  # three spellings with two answers, and in two levels
        records += [
            record(f"{number} + N?", "1"),
            record(f"{number}+n", "2"),
            record(f"{number} - n.", "2", answer="2"),
        ]
    records += problems("other ", 30, "2")
    train, test = split_records(records, 0.25, seed=seed)
    check_nothing_is_shared(train, test)
    assert per_level(test) == {"1": 12, "2": 12}  # of 48 and 46 rows: 12.0 and 11.5, together 23.5, so 24


def test_groups_that_do_not_fit_come_as_near_as_they_can():
    # A fifth of 12 rows is 2.4, so 2. Groups of 3 do not fit: one too many is nearer than two too few.
    records = [record(f"{number}{sign}", answer=sign) for number in range(4) for sign in "+-*"]
    train, test = split_records(records, 0.2)
    assert (len(train), len(test)) == (9, 3)
    check_nothing_is_shared(train, test)
