"""Measures of an evaluation of written problems, and their tables."""

import math

import pytest

from pipeline.questions.summary import TITLES, shown, writing_section, writing_summary, writing_table

JARS = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
LEFT = "Ben has 16 stones. Ben sells 6 stones. How many stones does Ben have now?"
BOTH = "Ada has 20 pears. Leo has 30 pears. How many pears do Ada and Leo have together?"


def row(statement: str, outcome: str = "correct", level: str = "1", **parts: float):
    return {
        "statement": statement,
        "outcome": outcome,
        "level": level,
        "parts": {"checked": float(outcome == "correct"), "novel": 0.5} | parts,
        "quality": 0.8 if outcome == "correct" else 0.0,
    }


def test_shares_are_over_all_and_means_over_what_has_a_value():
    rows = [
        row(JARS, novel=1.0),
        row(LEFT, "incorrect", checked=1.0),
        row("Who knows?", "incorrect"),
        row("", "unparsed"),
    ]
    found = writing_summary(rows)
    assert {name: found[name]["mean"] for name in ("well_formed", "computed", "right_key", "accepted")} == {
        "well_formed": 0.75,
        "computed": 0.5,
        "right_key": 0.5,
        "accepted": 0.25,
    }
    assert found["accepted"]["num"] == 4
    assert (found["operations"]["mean"], found["operations"]["num"]) == (1, 2)  # 5 * 11 and 16 - 6
    assert found["largest_number"]["mean"] == (55 + 16) / 2
    assert found["novelty"]["num"] == 3 and found["novelty"]["mean"] == pytest.approx(2 / 3)
    assert (found["novelty_computed"]["num"], found["novelty_computed"]["mean"]) == (2, 0.75)
    assert found["quality"]["mean"] == 0.2


def test_a_key_that_nothing_computed_is_not_shown_to_be_right():
    found = writing_summary([row(JARS), row("Who knows?", checked=1.0)])
    assert (found["computed"]["mean"], found["right_key"]["mean"], found["accepted"]["mean"]) == (0.5, 0.5, 1)


def test_a_reward_that_the_run_does_not_have_has_no_measure():
    found = writing_summary([row(JARS) | {"parts": {"well_formed": 1.0}}])
    assert (found["right_key"]["num"], found["novelty"]["num"], found["well_formed"]["num"]) == (0, 0, 1)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    quality = writing_summary([row(JARS), row("", "unparsed")])["quality"]
    half = 1.96 * math.sqrt(0.32) / math.sqrt(2)  # of 0.8 and 0: variance 0.32
    assert quality["low"] == pytest.approx(0.4 - half) and quality["high"] == pytest.approx(0.4 + half)


def test_diversity_compares_statements_of_a_level():
    same = writing_summary([row(JARS), row(JARS.replace("Mia", "Leo").replace("stones", "coins"))])["diversity"]
    assert same["num"] == 2 and same["mean"] == pytest.approx(0)  # names and things are masked
    different = writing_summary([row(JARS), row(BOTH)])["diversity"]
    assert different["mean"] > 0.3
    unread = writing_summary([row(JARS), row(JARS), row("Who knows?")])
    assert unread["diversity_computed"]["mean"] == pytest.approx(0)
    assert unread["diversity"]["mean"] > 0.3
    apart = writing_summary([row(JARS), row(JARS, level="2")])["diversity"]
    assert apart["num"] == 0


def test_nothing_written_has_no_measures():
    assert all(not measure["num"] for measure in writing_summary([]).values())
    assert writing_section([{"name": "before", "overall": {}}]) == ""


def test_a_table_shows_every_measure_of_every_evaluation():
    before = writing_summary([row("", "unparsed")])
    evaluations = [{"name": "before", "writing": before}]
    evaluations.append({"name": "<b>", "writing": writing_summary([row(JARS), row(LEFT)])})
    html = writing_section(evaluations)
    assert "<b>" not in html and all(title in html for title in TITLES.values())
    del before["computed"]  # an evaluation of an earlier version
    assert "can be computed</td><td>-</td>" in writing_section(evaluations).replace("\n", "")
    assert "100.0% [34.2%, 100.0%]" in html  # Wilson's interval of 2 of 2
    assert writing_table(evaluations).row_count == len(TITLES)
    assert shown("operations", {"mean": 1.5, "low": 1, "high": 2, "num": 4}, "+") == "+1.50 [+1.00, +2.00]"
