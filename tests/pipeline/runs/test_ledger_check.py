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


def violations(tmp_path: Any, rows: Rows, metrics: list[dict[str, Any]], **settings: Any) -> list[str]:
    report = check_ledger(write_run(tmp_path, rows, metrics, **settings))
    assert report
    return report.violations


def test_a_good_ledger_passes(tmp_path):
    report = check_ledger(write_run(tmp_path, good_rows(), good_metrics()))
    assert report and report.violations == [] and report.notes == []
    assert str(report) == "ledger: 8 groups of 4 steps (7 trained, 1 truncated), all accounted for once"
    assert report.summary()["num_violations"] == 0


def ended(row: LedgerRow, **values: Any) -> LedgerRow:
    """A group like this one, but its stage ended before it was answered."""
    unanswered = {"engine": None, "order": None, "checksum": None, "seeds": (1, 2)}
    return replace(row, **{"use": "stage_ended", **unanswered, **values})


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
    "wrong reason": (lambda rows: changed(rows, 5, use="ungraded"), "but 2 of its completions could be graded"),
    "one of them ungraded": (
        lambda rows: changed(rows, 5, use="ungraded", num_correct=2, num_unparsed=0, num_timeout=1),
        "step 3, position 1: dropped as ungraded, but 2 of its completions could be graded",
    ),
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
    "ended and trained": (
        lambda rows: [*rows, ended(rows[6], seeds=rows[6].seeds)],
        "step 4, position 0: problem 'p0' was used with the same seeds at stage rl, step 4, position 0",
    ),
    "ended twice": (
        lambda rows: [*rows, ended(rows[6]), ended(rows[7], problem_id="p0")],
        "step 4, position 1: problem 'p0' was dropped (stage_ended) with the same seeds at stage rl, step 4, position",
    ),
    "dropped and trained": (
        lambda rows: [*rows, replace(rows[2], use="surplus", order=9)],
        "step 2, position 0: problem 'p0' was used with the same seeds at stage rl, step 2, position 0",
    ),
    "no checksum": (
        lambda rows: changed(rows, 5, checksum=None),
        "step 3, position 1: must name the engine that wrote it and its weights, got no checksum",
    ),
    "no engine": (
        lambda rows: changed(rows, 5, engine=None, order=None, checksum=None),
        "step 3, position 1: must name the engine that wrote it and its weights, got no engine, order, checksum",
    ),
    "attempts": (
        lambda rows: changed(rows, 7, weight_attempt=6),
        "step 4: groups must be of one weight attempt, got 5, 6",
    ),
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
    replaced = replace(rows[2], use="surplus", engine="engine 2", seeds=(3, 4))
    metrics = [row | ({"num_groups": 3} if row["step"] == 2 else {}) for row in good_metrics()]
    assert violations(tmp_path, [*rows[:2], replaced, *rows[2:], ended(rows[7])], metrics, sampler="dynamic") == []


PLAIN = {"beta": 0.0, "entropy_coef": 0.0, "advantage_baseline": "group", "overlong_buffer_frac": 0.0}
DIFFER, EQUAL = "dropped as no_variance, but its rewards differ", "trained, but its rewards are equal"
Planted = tuple[dict[str, Any], dict[str, Any]]
"""Values of a group whose rewards are 0 and 1, and settings beside the plain ones."""
FLAT = {"reward_min": 1.0}


def rewards_of(tmp_path: Any, values: dict[str, Any], settings: dict[str, Any]) -> str:
    return "\n".join(violations(tmp_path, changed(good_rows(), 5, **values), good_metrics(), **{**PLAIN, **settings}))


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ({"use": "no_variance"}, {}, DIFFER),
        ({"use": "no_variance", "num_timeout": 1}, {"mask_ungraded": False}, DIFFER),
        (FLAT, {}, EQUAL),
        (FLAT, {"advantage_baseline": "leave_one_out"}, EQUAL),
        (FLAT, {"drop_zero_variance_groups": True, "beta": 0.1, "advantage_baseline": "batch"}, EQUAL),
    ],
)
def test_a_group_has_a_gradient_just_if_its_rewards_differ(tmp_path, values, settings, message):
    assert f"step 3, position 1: {message}" in rewards_of(tmp_path, values, settings)


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ({"use": "no_variance", "num_timeout": 1}, {}),
        ({"use": "no_variance"}, {"overlong_buffer_frac": 0.2}),
        ({"use": "no_variance", "reward_min": 1.0 - 1e-9}, {}),  # equal in float32
        (FLAT, {"beta": 0.1}),
        (FLAT, {"entropy_coef": 0.1}),
        (FLAT, {"advantage_baseline": "batch"}),
        (FLAT, {"overlong_buffer_frac": 0.2}),
    ],
)
def test_rewards_prove_nothing_where_something_else_may_have_decided(tmp_path, values, settings):
    found = rewards_of(tmp_path, values, settings)
    assert DIFFER not in found and EQUAL not in found


def test_the_next_stage_may_ask_for_what_the_last_one_no_longer_used(tmp_path):
    rows, metrics = good_rows(), good_metrics()
    left = [ended(rows[3], seeds=rows[4].seeds, problem_id=rows[4].problem_id)]
    later = [replace(row, stage="next" if row.step > 2 else "rl") for row in rows]
    metrics = [row | {"stage": "next" if row["step"] > 2 else "rl"} for row in metrics]
    assert violations(tmp_path, [*later[:4], *left, *later[4:]], metrics, batch_size=2) == []


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


def test_restarted_learners_may_merge_other_bits_for_the_version_of_their_checkpoint(tmp_path):
    """Two learners: the first published version 2 as sum2, the second as other."""
    rows = [
        replace(row, weight_attempt=6, order=row.order and row.order + 3, checksum="other" if row.step == 3 else "sum3")
        if row.step > 2
        else row
        for row in good_rows()
    ]
    assert violations(tmp_path / "a", rows, good_metrics()) == []
    wrong = changed(rows, 5, checksum="sum2")
    (line,) = violations(tmp_path / "b", wrong, good_metrics())
    assert "position 1: version 2 must have checksum other (stage rl, step 3, position 0), got sum2" in line
    wrong = changed(rows, 6, checksum="other")
    (line,) = violations(tmp_path / "c", wrong, good_metrics())
    assert "step 4, position 0: version 3 must have checksum sum3 (metrics.jsonl, step 3), got other" in line


def test_a_replay_publishes_other_weights_than_those_that_wrote_its_groups(tmp_path):
    metrics = [row | {"weights_checksum": "other"} for row in good_metrics()]
    assert violations(tmp_path / "a", good_rows(), metrics, replay="/another/run") == []
    assert violations(tmp_path / "b", good_rows(), metrics)


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
