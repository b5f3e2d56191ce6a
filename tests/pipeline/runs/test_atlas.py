"""The evidence about every problem after every step."""

import pandas
import pytest

from pipeline.runs.atlas import Atlas, write_atlas
from pipeline.runs.metrics_log import truncate_metrics
from tests.support.ledgers import good_metrics, good_rows, write_run
from tests.support.run_pages import add_steps, begin_run, ledger_row


def rows(*solved: int, of: int = 4):
    """One step per number of correct completions."""
    return [
        ledger_row(step, "p", ["correct"] * count + ["incorrect"] * (of - count))
        for step, count in enumerate(solved, 1)
    ]


def test_the_posterior_halves_the_weight_of_what_was_known_before():
    first, second = Atlas().add(rows(4, 0))
    assert (first.attempts, first.solved) == (4, 4) and first.mean == pytest.approx(5 / 6)  # Beta(5, 1)
    assert (first.low, first.high) == pytest.approx((0.05**0.2, 0.95**0.2))  # its distribution function is x^5
    assert second.mean == pytest.approx(3 / 8)  # Beta(1 + 2, 1 + 4)
    assert second.best == first.mean


@pytest.mark.parametrize(
    ("solved", "label"),
    [
        ((4,), "solved from the start"),
        ((3, 4), "solved from the start"),  # most of the first attempts, but not yet with certainty
        ((0, 0), "never solved"),
        ((2,), "partly solved"),
        ((1, 0, 0), "partly solved"),
        ((0, 4, 4), "learned"),
        ((0, 3, 3, 3), "learned"),  # a lasting rise, not to all
        ((2, 4, 4), "solved from the start"),  # as likely at one rate
        ((4, 0, 0), "forgotten"),
        ((0, 4, 4, 0, 0, 0), "forgotten"),
        ((4, 0, 0, 4, 4, 4), "learned"),
        ((4, 1, 1, 1), "forgotten"),  # a lasting fall, not to nothing
        ((4, 2), "solved from the start"),  # no longer sure, but not below a half either
    ],
)
def test_a_problem_is_labelled_by_its_newest_change_and_its_posterior(solved, label):
    assert Atlas().add(rows(*solved))[-1].label == label


def test_what_was_not_judged_is_no_attempt():
    ungraded = ledger_row(1, "p", ["timeout", "bad_gold"])
    left = ledger_row(1, "p", ["correct"] * 4, use="stage_ended")
    dropped = ledger_row(1, "q", ["correct", "unparsed"], use="refilled")
    (visit,) = Atlas().add([ungraded, left, dropped])
    assert (visit.problem_id, visit.attempts, visit.solved) == ("q", 2, 1)


def test_groups_of_a_step_count_together_and_steps_may_come_one_by_one():
    ledger = [*rows(0, 3), ledger_row(2, "p", ["correct"]), ledger_row(3, "p", ["correct"] * 4)]
    atlas = Atlas()
    one_by_one = [visit for step in (1, 2, 3) for visit in atlas.add([row for row in ledger if row.step == step])]
    assert [(visit.step, visit.attempts, visit.solved) for visit in one_by_one] == [(1, 4, 0), (2, 5, 4), (3, 4, 4)]
    assert one_by_one == Atlas().add(ledger) and one_by_one[0].label == "never solved"


def test_the_file_has_every_visit_and_the_problems_that_were_never_tried(tmp_path):
    problems = [{"problem_id": name, "level": "1", "type": "sums", "source": "s", "question": "?"} for name in "pq"]
    add_steps(begin_run(tmp_path / "run", problems), rows(4, 0))
    write_atlas(tmp_path / "run", tmp_path / "out")
    table = pandas.read_parquet(tmp_path / "out" / "metrics" / "problems.parquet")
    assert list(table["problem_id"]) == ["p", "p", "q"] and list(table["label"])[2] == "never tried"
    assert list(table["step"])[:2] == [1, 2] and table["step"].isna()[2] and set(table["type"]) == {"sums"}


def test_the_file_keeps_the_order_of_problems_and_leaves_out_a_step_that_is_not_over(tmp_path):
    names = [f"p{i}" for i in range(20)]
    run_dir = begin_run(tmp_path / "run", [{"problem_id": name} for name in names])
    add_steps(run_dir, [ledger_row(step, "tried", ["correct"]) for step in (1, 2)])
    truncate_metrics(run_dir, 1)
    write_atlas(run_dir, tmp_path)
    table = pandas.read_parquet(tmp_path / "metrics" / "problems.parquet")
    assert list(table["problem_id"]) == ["tried", *names]


def test_a_run_of_an_earlier_version_has_an_atlas_too_and_one_without_a_ledger_none(tmp_path):
    write_run(tmp_path / "old", good_rows(), good_metrics())
    write_atlas(tmp_path / "old", tmp_path)
    table = pandas.read_parquet(tmp_path / "metrics" / "problems.parquet")
    assert len(table) == 8 and set(table["problem_id"]) == {"p0", "p1"} and table["level"].isna().all()
    write_atlas(tmp_path, tmp_path / "none")
    assert not (tmp_path / "none").exists()
