"""The filter of written problems, and its reasons."""

import pytest

from pipeline.config import validate_config
from pipeline.config.questions import KeepConfig
from pipeline.questions.filters import TEST_READINGS, Keeper, Match, Similar, other_numbers, stage_keeper
from pipeline.questions.quotas import Cell
from pipeline.types import Problem

JARS = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
MORE_JARS = "Mia has 7 jars with 20 stones in each jar. How many stones does Mia have?"
SHELF = "A shop sells 12 pens a day for one week. How many pens does it sell in total?"
SUM = "What is 3 + 4?"


def row(statement: str = JARS, quality: float = 1.0, **values) -> dict:
    return {"statement": statement, "quality": quality, "parts": {"checked": 1.0}} | values


def judged(*rows: dict, config: KeepConfig | None = None, **settings) -> list[tuple[bool, str]]:
    keeper = Keeper(config or KeepConfig(), **settings)
    return [(one["is_kept"], one["reason"]) for one in map(keeper.judged, rows)]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (JARS, Match("exact", JARS, 1.0)),
        (f"  {JARS.upper()} \n", Match("exact", JARS, 1.0)),
        (MORE_JARS, Match("near", JARS, 1.0)),
        (SHELF, None),
        ("What is 3+4 ?", Match("exact", SUM, 1.0)),
        ("What is 3 + 5?", None),  # of so few words, the numbers are the problem
        ("", None),
    ],
)
def test_a_copy_is_found_whatever_its_numbers(statement, expected):
    assert Similar([JARS, SUM]).find(statement) == expected


def test_a_near_copy_shares_most_runs_of_three_words():
    """16 words make 14 runs; the last word is in 1 of them. So 13 are shared, of 13 + 1 + 1."""
    changed = MORE_JARS.replace("Mia have?", "Mia own?")
    assert Similar([JARS], near=0.86).find(changed) == Match("near", JARS, 13 / 15)
    assert Similar([JARS], near=0.87).find(changed) is None


def test_a_copy_with_other_names_and_things_is_found_by_its_numbers():
    renamed = "Omar has 5 jars with 11 coins in each jar. How many coins does Omar have?"
    assert Similar([JARS]).find(renamed) == Match("near", JARS, 1.0)
    assert Similar([JARS]).find(renamed.replace("11", "20")) is None  # only the pattern is the same


def test_a_copy_of_a_test_problem_is_found_with_other_names_and_numbers_at_once():
    changed = MORE_JARS.replace("Mia", "Omar")
    assert Similar([JARS]).find(changed) is None
    assert Similar([JARS], readings=TEST_READINGS).find(changed) == Match("near", JARS, 1.0)
    assert Similar([JARS], readings=TEST_READINGS).find(changed.replace("stones", "coins")) is None
    assert Similar([SUM], readings=TEST_READINGS).find("What is 3 + 5?") is None


def test_the_most_similar_text_is_named():
    found = Similar([JARS.replace("stones", "coins"), JARS], near=0.2).find(MORE_JARS)
    assert found == Match("near", JARS, 1.0)


@pytest.mark.parametrize("statement", ["Calculate 4 + 3.", "What is 4 + 3?", "Compute $3+4$."])
def test_the_same_computation_in_other_words_is_a_near_copy(statement):
    assert Similar([JARS, SUM]).find(statement) == Match("near", SUM, 1.0)
    assert Similar([JARS, SUM]).find(statement.replace("4", "5")) is None


def test_made_up_names_hide_no_copy():
    original = "Mia has 20 pears. Mia gets 30 pears. How many pears does Mia have now?"
    renamed = "The zork has 20 pears. The zork gets 30 pears. How many pears does the zork have now?"
    assert Similar([original]).find(renamed) == Match("near", original, 1.0)
    renumbered = renamed.replace("20", "21").replace("30", "31")
    assert Similar([original], readings=TEST_READINGS).find(renumbered) == Match("near", original, 1.0)


def test_no_text_is_like_any_other():
    assert Similar().find(JARS) is None and len(Similar([JARS, JARS.lower()])) == 1


def test_numbers_are_masked_only_among_words():
    assert other_numbers(JARS)[:5] == ["mia", "has", "#", "jars", "with"] and "3" in other_numbers(SUM)
    assert "16" in other_numbers(r"Compute $\frac{1}{2} + \sqrt{16} \cdot \log 10 \cdot \sin 30$.")


def test_what_fails_the_gate_or_falls_short_is_rejected_first():
    failed = row(parts={"well_formed": 1.0, "checked": 0.0, "difficulty": 0.0})
    (one,) = map(Keeper(KeepConfig(), ["well_formed", "checked", "difficulty"]).judged, [failed])
    assert (one["is_kept"], one["reason"], one["detail"]) == (False, "fails checked", "checked, difficulty")
    assert judged(row("", detail="no <answer>")) == [(False, "not well formed")]
    assert judged(row(), gates=["well_formed"]) == [(False, "fails well_formed")]  # a part that is missing is no pass
    low = judged(row(quality=0.49), row(quality=0.5), config=KeepConfig(min_quality=0.5))
    assert low == [(False, "low quality"), (True, "")]


def test_test_problems_and_other_data_are_left_out_by_name():
    found = judged(
        row(JARS),
        row(SHELF.replace("12", "99")),
        row(SUM),
        test_sets={"gsm8k": Similar([JARS]), "math": Similar([SHELF])},
        others={"old.jsonl": Similar([SUM])},
    )
    expected = ["test problem: gsm8k (exact)", "test problem: math (near)", "copy: old.jsonl (exact)"]
    assert found == [(False, reason) for reason in expected]


def test_other_parameters_allow_near_copies_of_the_training_data_alone():
    """With kinds=[parameters] near copies of data in ``against`` were kept, too."""
    rows = [row(MORE_JARS, kind="parameters"), row(SHELF.replace("12", "99"), kind="parameters")]
    known = {"training data": Similar([JARS]), "old.jsonl": Similar([SHELF])}
    assert judged(*rows, others=known) == [(True, ""), (False, "copy: old.jsonl (near)")]
    known = {"training data": Similar([JARS]), "old.jsonl": Similar([JARS])}
    assert judged(rows[0], others=known) == [(False, "copy: old.jsonl (near)")]


def test_only_what_was_kept_makes_a_duplicate():
    rows = [row(quality=0.0), row(), row(), row(MORE_JARS), row(SHELF)]
    config = KeepConfig(min_quality=0.5)
    reasons = ["low quality", "", "exact duplicate", "near duplicate", ""]
    assert [reason for _, reason in judged(*rows, config=config)] == reasons


def test_the_row_says_what_it_is_a_copy_of():
    *_, copy = map(Keeper(KeepConfig()).judged, [row(), row(MORE_JARS)])
    assert copy["detail"] == f"1.00 similar to: {JARS}"
    assert copy["parts"] == {"checked": 1.0}


def test_no_more_than_the_quota_of_a_cell_is_kept():
    other = "Each of 4 boats carries 6 sailors over the lake. Find the number of sailors."
    rows = [row(text, kind="new", topic="stories", level="1") for text in (JARS, JARS, SHELF, other)]
    assert judged(*rows, quotas={Cell("new", "stories", "1"): 2}) == [
        (True, ""),
        (False, "exact duplicate"),  # it does not use up the quota
        (True, ""),
        (False, "not needed"),
    ]


def known(statement: str) -> Problem:
    return Problem("p", ({"role": "user", "content": statement},), "55")


def test_a_stage_keeps_no_copy_of_its_own_data():
    config = validate_config({"stages": [{"name": "write", "kind": "grpo"}]})
    keeper = stage_keeper(config, [known(JARS)], [known(SHELF)])
    rows = [row(MORE_JARS), row(MORE_JARS, kind="parameters"), row(JARS, kind="parameters"), row(SHELF), row(SUM)]
    assert [keeper.judged(each)["reason"] for each in rows] == [
        "copy: training data (near)",
        "",  # other parameters make a near copy on purpose
        "copy: training data (exact)",
        "test problem: held-out data (exact)",
        "",
    ]
