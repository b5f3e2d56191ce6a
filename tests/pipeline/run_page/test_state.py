"""The data that a page shows of a run that is being written."""

import json

import pytest

from pipeline.errors import CheckpointError
from pipeline.files import write_table
from pipeline.run_page.completions import completions
from pipeline.run_page.state import GROUP_FIELDS, Cursor, RunState
from pipeline.runs.ledger import USES, ledger_path
from pipeline.runs.metrics_log import metrics_path, truncate_metrics
from pipeline.runs.newest_completions import write_newest
from pipeline.runs.problem_record import problems_path
from tests.support.run_pages import add_steps, begin_run, ledger_row, metrics_row
from tests.support.runs import write_metrics

PROBLEMS = [{"problem_id": name, "level": "1", "question": f"{name}?"} for name in ("p", "q", "never")]


@pytest.fixture
def run(tmp_path):
    run_dir = begin_run(tmp_path / "run", PROBLEMS)
    rows = [ledger_row(1, "p", ["correct", "correct"]), ledger_row(1, "q", ["incorrect", "timeout"], 1)]
    add_steps(run_dir, rows, {(1, "p"): ["a", "b"]})
    return run_dir


def read(run_dir) -> RunState:
    state = RunState(run_dir)
    state.read()
    return state


def groups(state: RunState) -> list[dict]:
    return [dict(zip(GROUP_FIELDS, group, strict=True)) for group in state.since(Cursor())["groups"]]


def test_groups_problems_and_metrics_of_whole_steps(run):
    state = read(run)
    assert [row["step"] for row in state.metrics] == [1] and "time" not in state.metrics[0]
    first, second = groups(state)
    assert (first["problem"], first["solved"], first["attempts"], first["mean"]) == (0, 2, 2, 0.75)
    assert (second["solved"], second["attempts"]) == (0, 1)  # a timeout says nothing
    assert [problem["label"] for problem in state.problems] == ["partly solved", "never solved", "never tried"]
    assert first["is_stored"] and state.problems[0]["question"] == "p?"


def test_rows_of_a_step_that_is_not_over_and_half_a_line_are_left_for_later(run):
    add_steps(run, [ledger_row(2, "p", ["correct"] * 4)])
    whole = metrics_path(run).read_bytes()
    metrics_path(run).write_bytes(whole[:-20])
    state = read(run)
    assert len(state.metrics) == 1 and len(state.groups) == 2
    with metrics_path(run).open("ab") as file:
        file.write(whole[-20:])
    state.read()
    assert len(state.metrics) == 2 and len(state.groups) == 3 and state.generation == 0


def test_a_page_gets_only_what_it_lacks(run):
    state = read(run)
    cursor = state.cursor
    assert cursor == Cursor(0, 1, 2, 3, 0)
    nothing: dict = {"metrics": [], "groups": [], "problems": {}, "evaluations": []}
    assert state.since(cursor) == nothing
    add_steps(run, [ledger_row(2, "q", ["correct"] * 4), ledger_row(2, "new", ["correct"], 1)])
    state.read()
    news = state.since(cursor)
    assert [row["step"] for row in news["metrics"]] == [2] and len(news["groups"]) == 2
    assert {index: problem["problem_id"] for index, problem in news["problems"].items()} == {1: "q", 3: "new"}
    assert state.since(state.cursor) == nothing
    assert json.dumps(state.since(Cursor())) == json.dumps(read(run).since(Cursor()))


def test_a_resumed_run_that_repeats_steps_is_read_again(run):
    add_steps(run, [ledger_row(2, "p", ["correct"] * 4)])
    state = read(run)
    truncate_metrics(run, 1)
    add_steps(run, [ledger_row(2, "q", ["correct"] * 4)])
    state.read()
    assert state.generation == 1 and len(state.metrics) == 2
    assert [group["problem"] for group in groups(state)] == [0, 1, 1]


def test_a_resumed_run_that_has_only_dropped_rows_is_read_again(run):
    add_steps(run, [ledger_row(2, "p", ["correct"] * 4)])
    state = read(run)
    part = next(ledger_path(run).iterdir())
    import pyarrow.parquet as pq

    write_table(part, pq.ParquetFile(part).read().slice(0, 2))
    write_metrics(run, [metrics_row(1)])
    state.read()
    assert (state.generation, len(state.groups), len(state.metrics)) == (1, 2, 1)


def test_a_file_of_metrics_that_repeats_a_step_is_an_error_until_it_is_whole(run):
    whole = metrics_path(run).read_bytes()
    state = read(run)
    for _ in range(2):
        metrics_path(run).write_bytes(whole + whole)
        with pytest.raises(CheckpointError, match="must have every step once"):
            state.read()
    metrics_path(run).write_bytes(whole)
    state.read()
    assert len(state.metrics) == 1 and len(state.groups) == 2


def test_completions_of_the_newest_steps_are_shown_until_they_are_deleted(run):
    for step in range(2, 9):
        write_newest(run, [{"problem_id": "p", "completion": f"{step}"}], step)
    add_steps(run, [ledger_row(step, "p", ["correct"]) for step in range(2, 9)])
    state = read(run)
    assert {group["step"] for group in groups(state) if group["is_stored"]} == {1, 4, 5, 6, 7, 8}
    assert completions(run, 8)[0]["text"] == "8" and completions(run, 3) == []
    write_newest(run, [], 9)
    assert {group["step"] for group in groups(state) if group["is_stored"]} == {1, 5, 6, 7, 8}


def test_problems_of_a_later_stage_join_when_it_begins(run):
    state = read(run)
    path = problems_path(run) / "rl.parquet"
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read().slice(0, 1)
    write_table(problems_path(run) / "later.parquet", table.set_column(0, "problem_id", [["later"]]))
    state.read()
    assert [problem["problem_id"] for problem in state.problems] == ["p", "q", "never", "later"]


def test_a_run_without_groups_or_without_anything_is_read(tmp_path):
    state = read(begin_run(tmp_path / "run", []))
    assert state.cursor == Cursor() and not state.problems
    write_metrics(tmp_path / "run", [{"step": 1, "stage": "sft", "kind": "sft", "loss": 0.5, "text": "x"}])
    state.read()
    assert state.metrics == [{"step": 1, "loss": 0.5, "stage": "sft", "kind": "sft"}]


def test_problems_that_were_never_tried_are_limited(run, monkeypatch):
    monkeypatch.setattr("pipeline.run_page.state.MAX_UNTRIED", 1)
    state = read(run)
    assert state.num_untried_left_out == 1
    assert [problem["problem_id"] for problem in state.problems] == ["p", "q"]


def test_problems_that_did_not_fit_are_no_longer_untried_once_they_are_tried(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.run_page.state.MAX_UNTRIED", 2)
    names = [f"p{i}" for i in range(6)]
    run_dir = begin_run(tmp_path / "run", [{"problem_id": name} for name in names])
    state = read(run_dir)
    counts = []
    for step, name in enumerate(names, 1):
        add_steps(run_dir, [ledger_row(step, name, ["correct"])])
        state.read()
        counts.append(state.num_untried_left_out)
    assert counts == [4, 4, 3, 2, 1, 0] and read(run_dir).num_untried_left_out == 0


def test_only_groups_of_a_batch_are_stored(tmp_path):
    run_dir = begin_run(tmp_path / "run", [])
    rows = [ledger_row(1, use, ["correct"], position, use=use) for position, use in enumerate(USES)]
    add_steps(run_dir, rows, {(1, use): ["a"] for use in USES})
    assert {use: group["is_stored"] for use, group in zip(USES, groups(read(run_dir)), strict=True)} == {
        **dict.fromkeys(("trained", "no_variance", "ungraded", "truncated"), True),
        **dict.fromkeys(("refilled", "surplus", "stage_ended"), False),
    }
