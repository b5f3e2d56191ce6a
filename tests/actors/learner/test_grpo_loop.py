"""GRPO with a real vLLM engine and a real grader, in this process: see tests/support/loops.py."""

import json
from pathlib import Path

import pandas
import pytest

from pipeline.config import Config, validate_config
from pipeline.run_page.completions import completions
from pipeline.run_page.state import Cursor, RunState
from pipeline.runs.atlas import write_atlas
from pipeline.runs.directory import RunDirectory
from pipeline.runs.ledger import read_ledger
from pipeline.runs.ledger_check import check_ledger
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.replay import first_difference
from tests.support.loops import run_loops, run_loops_crashing_after, write_splits
from tests.support.recipes import REWARDS

pytestmark = pytest.mark.slow

STEPS = 4
SAME = ("loss", "kl", "entropy", "grad_norm", "learning_rate", "reward_mean", "completion_length_mean")


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory) -> dict:
    """Two iterations of two steps, two updates a step, a KL term, and a reward that random text can earn."""
    directory = tmp_path_factory.mktemp("data")
    write_splits(directory, [{"question": f"{a} + {a}?", "answer": f"so #### {2 * a}"} for a in range(24)])
    return {
        "model": {"name": str(tiny_model), "dtype": "float32", "device": "cpu"},
        "data": {"name": str(directory), "answer_format": "hash", "system_prompt": ""},
        "stages": [{"name": "rl", "kind": "grpo"}],
        "grpo": {"batch_size": 4, "num_generations": 4, "num_steps": 2, "num_iterations": 2, "mu": 2, "beta": 0.02}
        | {"learning_rate": 3e-3, "epsilon": 0.1},
        "rollout": {"max_prompt_length": 64, "max_completion_length": 16, "prompts_per_chunk": 2},
        "reward": {"functions": REWARDS},
        "learner": {"tokens_per_micro_batch": 256, "num_threads": 1},
        "eval": {"problems_per_level": 0},
        "checkpoint": {"every_steps": 1},
        "tracking": {"backends": []},
    }


def configure(recipe: dict, root: Path, **sections: dict) -> Config:
    merged = {name: recipe.get(name, {}) | settings for name, settings in sections.items()}
    output = {"root": str(root), "samples_every_steps": 2, "record_rollouts": True}
    return validate_config({**recipe, **merged, "output": output})


@pytest.fixture(scope="module")
def reference_run(recipe, local_actors, tmp_path_factory) -> Path:
    return run_loops(configure(recipe, tmp_path_factory.mktemp("reference")), local_actors).path


def curves(run: Path) -> dict[str, list[float]]:
    return {key: [row[key] for row in read_metrics(run)] for key in SAME}


def test_engine_and_learner_hold_the_same_weights(reference_run):
    rows = read_metrics(reference_run)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["iteration"] for row in rows] == [1, 1, 2, 2]
    for row in rows:
        assert row["staleness"] == 0 and row["policy_version"] == row["step"] - 1
        assert row["sampler_logprob_diff"] < 1e-3  # float32 on both sides
        phases = sum(row[f"{phase}_s"] for phase in ("rollout", "reward", "learner", "weight_sync", "other"))
        assert phases == pytest.approx(row["step_s"])
        assert 0.1 < row["memory/allocated_gib"] <= row["memory/peak_gib"]
    points = json.loads((reference_run / "memory.json").read_text())["rl"]
    assert {"model_loaded", "rollout", "backward", "learner", "weight_sync", "checkpoint", "evaluation"} < set(points)
    assert any(row["grad_norm"] > 0 for row in rows)
    assert any(row["clip_frac"] > 0 for row in rows)  # the second of the mu passes leaves ratio 1


def test_the_atlas_of_a_run_has_its_problems_those_never_tried_too(reference_run, tmp_path):
    write_atlas(reference_run, tmp_path)
    table = pandas.read_parquet(tmp_path / "metrics" / "problems.parquet")
    tried = {row.problem_id for row in read_ledger(reference_run)}
    assert table["problem_id"].nunique() == 24 and set(table["problem_id"][table["step"].notna()]) == tried
    state = RunState(reference_run)
    state.read()
    assert len(state.groups) == 4 * STEPS
    assert all(group[-1] for group in state.since(Cursor())["groups"])  # rollouts are recorded
    assert len(completions(reference_run, 1)) == 4 * 4


def test_every_iteration_takes_the_policy_as_its_new_reference(recipe, local_actors, tmp_path):
    run = run_loops(configure(recipe, tmp_path, grpo={"mu": 1}), local_actors)
    kl = [row["kl"] for row in read_metrics(run.path)]
    assert kl[0] == kl[2] == 0 and kl[1] > 0 and kl[3] > 0  # with one update a step, the first has not left it yet


def test_a_run_resumed_after_a_crash_ends_bit_identical(recipe, reference_run, local_actors, tmp_path):
    config = configure(recipe, tmp_path)
    crashed = run_loops_crashing_after(2, config, local_actors)  # before the checkpoint of step 2
    assert crashed.checkpoints.paths()[-1].name == "step_000001"
    resumed = run_loops(config, local_actors, RunDirectory(crashed.path)).path
    assert curves(resumed) == curves(reference_run)
    for name in ("samples/step_000002.jsonl", "samples/step_000004.jsonl", "final_model/model.safetensors"):
        assert (resumed / name).read_bytes() == (reference_run / name).read_bytes(), name


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_a_crashed_and_resumed_run_is_accounted_for_and_replays_to_the_bits(
    max_staleness, recipe, local_actors, tmp_path
):
    ahead = {"max_staleness": max_staleness, "prompts_per_chunk": None}
    config = configure(recipe, tmp_path, rollout=ahead)
    crashed = run_loops_crashing_after(2, config, local_actors)
    run = run_loops(config, local_actors, RunDirectory(crashed.path)).path
    report = check_ledger(run)
    assert report is not None and (report.violations, report.num_steps) == ([], STEPS)
    # Resumed after step 1, the groups of step 2 are asked for again, with the weights of then.
    asked = {row.step: row.step_asked for row in read_ledger(run)}
    assert asked == ({1: 0, 2: 1, 3: 2, 4: 3} if max_staleness == 0 else {1: 0, 2: 1, 3: 1, 4: 2})
    again = configure(recipe, tmp_path, rollout={**ahead, "replay": str(run)})
    replay = run_loops(again, local_actors).path
    assert first_difference(replay, run) is None
    assert check_ledger(replay) == report
    name = "final_model/model.safetensors"
    assert (replay / name).read_bytes() == (run / name).read_bytes()


def test_a_run_with_a_sampler_that_crashed_twice_ends_bit_identical(recipe, local_actors, tmp_path):
    """Groups of two, some of equal rewards; half as many groups more are asked for as a batch has."""
    sampler = {"name": "dynamic", "dynamic": {"oversampling": 1.5}, "forgetting_frac": 0.5}
    grpo, rollout = {"num_generations": 2, "sampler": sampler}, {"prompts_per_chunk": None}
    configs = [configure(recipe, tmp_path / name, grpo=grpo, rollout=rollout) for name in ("whole", "crashed")]
    whole = run_loops(configs[0], local_actors).path
    crashed = run_loops_crashing_after(2, configs[1], local_actors)
    again = run_loops_crashing_after(3, configs[1], local_actors, RunDirectory(crashed.path))
    resumed = run_loops(configs[1], local_actors, RunDirectory(again.path)).path
    assert curves(resumed) == curves(whole)
    asked = [[(row.step, row.problem_id, row.seeds, row.use) for row in read_ledger(run)] for run in (whole, resumed)]
    assert asked[0] == asked[1] and {"trained", "surplus"} <= {use for *_, use in asked[0]}
    for run in (whole, resumed):
        report = check_ledger(run)
        assert report is not None and (report.violations, report.num_steps) == ([], STEPS)
        assert all(row["rejected_groups"] == row["num_groups"] - 4 for row in read_metrics(run))
    name = "final_model/model.safetensors"
    assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_smaller_micro_batches_leave_the_curve_unchanged(recipe, reference_run, local_actors, tmp_path):
    small = run_loops(configure(recipe, tmp_path, learner={"tokens_per_micro_batch": 80}), local_actors).path
    expected = curves(reference_run)
    for key, values in curves(small).items():
        assert values == pytest.approx(expected[key], rel=1e-3, abs=1e-5), key
