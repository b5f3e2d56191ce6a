"""Faults planted into a good ledger: each is found, with its place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.runs.ledger import LedgerRow, ledger_path
from pipeline.runs.ledger_check import announce_ledger, check_ledger
from tests.support.ledgers import changed, good_metrics, good_rows, write_run
from tests.support.runs import write_metrics

Rows = list[LedgerRow]


def violations(
    tmp_path: Any, rows: Rows, metrics: list[dict[str, Any]], max_staleness: int = 0, sampler: str = "uniform"
) -> list[str]:
    report = check_ledger(write_run(tmp_path, rows, metrics, max_staleness, sampler))
    assert report
    return report.violations


def test_a_good_ledger_passes(tmp_path):
    report = check_ledger(write_run(tmp_path, good_rows(), good_metrics()))
    assert report and report.violations == [] and report.notes == []
    assert str(report) == "ledger: 8 groups of 4 steps (7 trained, 1 truncated), all accounted for once"
    assert report.summary()["num_violations"] == 0


PLANTED: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "twice": (lambda rows: [*rows, rows[3]], "step 2, position 1: must be used once, got 2 rows: trained, trained"),
    "twice, elsewhere": (
        lambda rows: changed(rows, 5, problem_id="p1", seeds=rows[3].seeds),
        "step 3, position 1: problem 'p1' was used with the same seeds at stage rl, step 2, position 1",
    ),
    "missing": (lambda rows: rows[:3] + rows[4:], "step 2, position 1: must be used once or dropped for a reason, got"),
    "a version that falls": (
        lambda rows: changed(rows, 5, oldest_version=0, newest_version=0, step_asked=0),
        "step 3, position 1: versions of engine engine 1 must only rise, got 0 after 1 (stage rl, step 2, position 1)",
    ),
    "within a group": (
        lambda rows: changed(rows, 5, newest_version=1),
        "must only rise, got asked at 2, oldest 2, new",
    ),
    "of the future": (lambda rows: changed(rows, 5, newest_version=3), "position 1: must be of a version below its st"),
    "order": (lambda rows: changed(rows, 5, order=1), "engine engine 1 must begin one group at a time, got 1 twice"),
    "attempt": (lambda rows: changed(rows, 4, weight_attempt=4), "step 3, position 0: weight attempts must only rise"),
    "checksum": (
        lambda rows: changed(rows, 5, checksum="other"),
        "step 3, position 1: version 2 must have checksum sum2 (metrics.jsonl, step 2), got other",
    ),
    "checksum at the start": (
        lambda rows: changed(rows, 1, checksum="other"),
        "step 1, position 1: version 0 must have checksum sum0 (stage rl, step 1, position 0), got other",
    ),
    "reason": (
        lambda rows: changed(rows, 5, use="forgotten"),
        "step 3, position 1: use must be one of trained, no_var",
    ),
    "wrong reason": (lambda rows: changed(rows, 5, use="ungraded"), "but all of its completions were graded"),
    "cut off": (lambda rows: changed(rows, 7, num_truncated=0), "dropped as truncated, but none of its completions wa"),
    "rewards": (
        lambda rows: changed(rows, 5, reward_mean=0.75),
        "step 3: metrics.jsonl must agree with the ledger, got reward_mean 0.5, not 0.625",
    ),
    "outcomes": (lambda rows: changed(rows, 5, num_correct=2, num_unparsed=0), "got correct_frac 0.5, not 0.75"),
    "size": (lambda rows: changed(rows, 5, num_correct=2), "step 3, position 1: must have 2 graded completions, got 3"),
    "place": (lambda rows: changed(rows, 5, position=2), "step 3, position 2: must be a place in a batch of 2"),
    "stage": (lambda rows: changed(rows, 5, stage="other"), "metrics.jsonl must say that this is its stage, got rl"),
    "never replaced": (lambda rows: changed(rows, 5, use="refilled"), "dropped (refilled), and no other took its p"),
    "never dynamic": (
        lambda rows: [*rows, replace(rows[5], use="surplus")],
        "step 3, position 1: surplus needs grpo.sampler.name dynamic, got uniform",
    ),
    "a reason of no ledger": (
        lambda rows: changed(rows, 5, use="too_stale"),
        "use must be one of trained, no_variance, ungraded, truncated, refilled, surplus, stage_ended",
    ),
    "ended": (lambda rows: changed(rows, 5, use="stage_ended"), "its stage must have ended here, got steps until 4"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_with_its_place(tmp_path, name):
    plant, message = PLANTED[name]
    found = violations(tmp_path, plant(good_rows()), good_metrics(), max_staleness=2)
    assert any(message in line for line in found), found


def test_staleness_stays_within_its_bound(tmp_path):
    stale = changed(good_rows(), 5, oldest_version=1, newest_version=1, step_asked=1, checksum="sum1")
    metrics = [row | ({"policy_version": 1, "staleness": 1} if row["step"] == 3 else {}) for row in good_metrics()]
    assert violations(tmp_path / "a", stale, metrics, max_staleness=1) == []
    (line,) = violations(tmp_path / "b", stale, metrics)
    assert "step 3, position 1: staleness must be at most 0 (rollout.max_staleness), got 1" in line


@pytest.mark.parametrize(
    ("key", "value"), [("reward_mean", 0.501), ("num_groups", 3), ("staleness", 1), ("weights_checksum", "other")]
)
def test_metrics_that_say_otherwise_are_found(tmp_path, key, value):
    metrics = [row | ({key: value} if row["step"] == 2 else {}) for row in good_metrics()]
    assert violations(tmp_path, good_rows(), metrics)


def test_a_group_that_was_replaced_and_those_of_an_ended_stage_are_accounted_for(tmp_path):
    rows = good_rows()
    replaced = replace(rows[2], use="surplus", engine=None, order=None)
    ended = replace(rows[7], use="stage_ended", engine=None, order=None, seeds=(1, 2))
    metrics = [row | ({"num_groups": 3} if row["step"] == 2 else {}) for row in good_metrics()]
    assert violations(tmp_path, [*rows[:2], replaced, *rows[2:], ended], metrics, sampler="dynamic") == []


def test_a_step_that_a_kill_cut_short_is_only_noted(tmp_path):
    report = check_ledger(write_run(tmp_path, good_rows(), good_metrics()[:3]))
    assert report and report.violations == []
    assert report.notes == ["2 groups are of steps after 3, which were not finished"]


def test_restarted_learners_may_repeat_the_version_of_their_checkpoint(tmp_path):
    rows = [
        replace(row, weight_attempt=6, order=row.order and row.order + 3) if row.step > 2 else row
        for row in good_rows()
    ]
    assert violations(tmp_path, rows, good_metrics()) == []


def test_runs_without_grpo_and_of_earlier_versions_have_no_ledger(tmp_path):
    write_metrics(tmp_path, [{"step": 1, "stage": "a", "kind": "sft"}, {"step": 2, "stage": "rl", "kind": "grpo"}])
    assert check_ledger(tmp_path) is None and announce_ledger(tmp_path) == 0


def test_a_ledger_that_was_deleted_is_missed(tmp_path):
    write_metrics(tmp_path, good_metrics())
    report = check_ledger(tmp_path)
    assert report and "stage rl, step 1: metrics.jsonl must agree" in report.violations[0]


def test_a_corrupt_ledger_is_a_violation_and_said_on_the_console(tmp_path, capsys):
    write_run(tmp_path, good_rows(), good_metrics())
    part = ledger_path(tmp_path) / "part_00001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    assert announce_ledger(tmp_path) == 1
    assert "part_00001.parquet must hold rows of a ledger: the file is corrupt" in capsys.readouterr().out
