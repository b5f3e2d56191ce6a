"""The numbers of a run, worked out by hand."""

import json

import pytest

from pipeline.reports.run_summary import summarize_run
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import read_config, read_evaluations
from tests.support.runs import make_run


def test_a_summary_by_hand():
    grpo = {"stage": "b", "kind": "grpo", "unparsed_frac": 0.25, "timeout_frac": 0.0}
    rows = [
        {"step": 1, "stage": "a", "kind": "sft", "time": 100.0, "step_s": 4.0, "learner_s": 3.0},
        {"step": 2, **grpo, "time": 110.0, "step_s": 10.0, "rollout_s": 6.0, "rollout_tokens_per_s": 100.0}
        | {"reward_mean": 1.5, "correct_frac": 0.5},
        {"step": 3, **grpo, "time": 150.0, "step_s": 10.0, "rollout_s": 2.0, "rollout_tokens_per_s": 500.0}
        | {"reward_mean": 1.0, "correct_frac": 0.25, "timeout_frac": 0.125},
    ]
    stages = [{"name": "b", "settings": {"num_generations": 4}}]
    summary = summarize_run("run", rows, [], {"grpo": {"batch_size": 2, "num_generations": 8}, "stages": stages})
    assert summary["steps_per_stage"] == {"a": 1, "b": 2}
    assert summary["wall_time_s"] == 54.0  # 150 - 100, and the 4 s of the first step
    assert summary["reward"] == {"first": 1.5, "final": 1.0, "mean_of_last_10": 1.25, "best": 1.5, "best_step": 2}
    assert summary["phase_seconds"]["rollout"] == 8.0
    assert summary["grpo_phase_frac"]["rollout"] == 0.4  # 8 of 20 s
    assert summary["tokens_per_s"] == {"rollout": 200.0, "learner": None}  # (600 + 1000) tokens in 8 s
    # 8 completions a step: 4 + 2 correct, 2 + 2 unparsed, 0 + 1 timeouts, the other 2 + 3 incorrect
    counts = {name: outcome["count"] for name, outcome in summary["outcomes"].items()}
    assert counts == {"correct": 6, "incorrect": 5, "unparsed": 4, "timeout": 1, "bad_gold": 0}


def test_a_summary_has_every_evaluation_and_the_changes(tmp_path):
    run = make_run(tmp_path)
    summary = summarize_run("run", read_metrics(run), read_evaluations(run), read_config(run))
    assert json.loads(json.dumps(summary, allow_nan=False))
    assert [evaluation["name"] for evaluation in summary["accuracy"]] == ["before", "sft-warmup", "grpo-sums"]
    change = summary["accuracy_change"]
    assert change["first_to_last"]["levels"]["level 2"]["tagged"] == pytest.approx(0.34)
    assert [(c["from"], c["to"]) for c in change["between"]] == [("before", "sft-warmup"), ("sft-warmup", "grpo-sums")]
    assert change["between"][1]["levels"]["level 3"] == pytest.approx({"tagged": 0.08, "last_number": 0.08})
    interval = summary["accuracy"][0]["levels"]["level 1"]["accuracy_tagged_interval"]
    assert interval[1] == pytest.approx(0.07135, abs=1e-4)
    assert "torch" in summary["versions"]


def test_outcomes_have_no_counts_without_the_settings():
    row = {"step": 1, "kind": "grpo", "stage": "b", "correct_frac": 0.5, "unparsed_frac": 0.5}
    outcomes = summarize_run("run", [row], [], {})["outcomes"]
    assert outcomes["correct"] == {"count": None, "frac": 0.5} and outcomes["incorrect"]["frac"] == 0.0


def test_a_run_with_evaluations_only_has_no_reward_and_no_time():
    summary = summarize_run("run", [], [], {})
    assert (summary["num_steps"], summary["reward"], summary["wall_time_s"], summary["outcomes"]) == (0, None, 0.0, {})
