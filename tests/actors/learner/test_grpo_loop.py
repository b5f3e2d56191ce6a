"""Whole runs: real Ray, real vLLM engines, on a tiny random model where the real one is not needed."""

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.runs.metrics_log import read_metrics
from tests.conftest import ROOT
from tests.support.jobs import job, killed_at, only_run, run_job, save_recipe
from tests.support.models import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SFT_STEPS, GRPO_STEPS = 2, 6


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """Two stages on a tiny model in float32; the reward is one that random text can earn."""
    directory = tmp_path_factory.mktemp("recipe")
    rows = [{"question": f"{a} + {a}?", "answer": f"so #### {2 * a}"} for a in range(24)]
    for split in ("train", "test"):
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model": {"name": str(save_tiny_model(directory / "model")), "dtype": "float32", "device": "cpu"},
        "data": {"name": str(directory), "answer_format": "hash", "system_prompt": ""},
        "stages": [{"name": "warmup", "kind": "sft"}, {"name": "grpo", "kind": "grpo"}],
        "sft": {"per_device_train_batch_size": 4, "max_steps": SFT_STEPS, "learning_rate": 1e-3},
        "grpo": {"batch_size": 4, "num_generations": 4, "num_steps": GRPO_STEPS, "mu": 2, "beta": 0.02}
        | {"learning_rate": 3e-3, "epsilon": 0.1},
        "rollout": {"max_prompt_length": 64, "max_completion_length": 16, "prompts_per_chunk": 2} | {"memory_gib": 1.5},
        "reward": {"functions": [{"name": "tests.support.models:letter_reward"}, {"name": "format", "weight": 0.5}]},
        "learner": {"tokens_per_micro_batch": 256, "num_cpus": 0.5, "memory_gib": 1.0},
        "eval": {"problems_per_level": 8, "max_completion_length": 16},
        "checkpoint": {"every_steps": 1},
        "output": {"samples_every_steps": 2},
    }
    return save_recipe(directory, settings)


@pytest.fixture(scope="module")
def reference_run(recipe, tmp_path_factory) -> Path:
    """A run that nothing disturbs."""
    root = tmp_path_factory.mktemp("reference")
    run_job("--config", recipe, f"output.root={root}")
    return only_run(root)


def test_a_run_leaves_what_it_promises(reference_run):
    rows = read_metrics(reference_run)
    assert [row["step"] for row in rows] == list(range(1, SFT_STEPS + GRPO_STEPS + 1))
    assert [row["stage"] for row in rows] == ["warmup"] * SFT_STEPS + ["grpo"] * GRPO_STEPS
    for row in rows[SFT_STEPS:]:
        assert row["staleness"] == 0
        assert row["policy_version"] == row["step"] - 1
        assert row["sampler_logprob_diff"] < 1e-3  # float32 on both sides: engine and learner hold the same weights
        phases = sum(row[f"{phase}_s"] for phase in ("rollout", "reward", "learner", "weight_sync", "other"))
        assert phases == pytest.approx(row["step_s"])
    assert any(row["grad_norm"] > 0 for row in rows[SFT_STEPS:])
    assert any(row["clip_frac"] > 0 for row in rows[SFT_STEPS:])  # mu is 2: the second pass leaves ratio 1
    for name in ("experiment_config.json", "summary.json", "report.html", "plots/reward.png", "logs/learner_0.log"):
        assert (reference_run / name).stat().st_size > 0, name
    assert sorted(path.name for path in (reference_run / "eval").iterdir()) == [
        "before.json",
        "grpo.json",
        "warmup.json",
    ]
    assert (reference_run / "samples" / "step_000004.jsonl").read_text().count("\n") == 4 * 4


def test_the_final_model_is_an_ordinary_checkpoint(reference_run):
    import torch
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(
        json.loads((reference_run / "experiment_config.json").read_text())["model"]["name"]
    )
    after = AutoModelForCausalLM.from_pretrained(reference_run / "final_model")
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)


def test_killed_in_the_middle_and_resumed_ends_the_same(recipe, reference_run, tmp_path):
    killed_at(SFT_STEPS + 3, tmp_path, "--config", recipe)
    run_job("--config", recipe, f"output.root={tmp_path}", "--resume", "latest")
    resumed, reference = read_metrics(only_run(tmp_path)), read_metrics(reference_run)
    assert [row["step"] for row in resumed] == list(range(1, SFT_STEPS + GRPO_STEPS + 1))
    for key in ("loss", "grad_norm", "learning_rate"):
        assert [row[key] for row in resumed] == [row[key] for row in reference], key
    for name in ("step_000004.jsonl", "step_000008.jsonl", "eval_grpo.jsonl"):
        assert (only_run(tmp_path) / "samples" / name).read_bytes() == (reference_run / "samples" / name).read_bytes()
    final = "final_model/model.safetensors"
    assert (only_run(tmp_path) / final).read_bytes() == (reference_run / final).read_bytes()


def test_two_learners_and_two_engines_give_the_curve_of_one(recipe, reference_run, tmp_path):
    run_job(
        "--config",
        recipe,
        f"output.root={tmp_path}",
        "learner.num_workers=2",
        "sft.per_device_train_batch_size=2",
        "rollout.num_workers=2",
        "rollout.num_cpus=0.25",
    )
    two, one = read_metrics(only_run(tmp_path)), read_metrics(reference_run)
    for key in ("loss", "grad_norm"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in one], rel=1e-3, abs=1e-5), key
    assert [row["completion_length_mean"] for row in two[2:]] == [row["completion_length_mean"] for row in one[2:]]


def test_the_demo_job_runs_through_ray_job_submit(tmp_path):
    short = ["sft.max_steps=1", "grpo.num_steps=1", "grpo.batch_size=2", "grpo.num_generations=2"]
    short += ["rollout.prompts_per_chunk=2", "eval.problems_per_level=1", "rollout.max_completion_length=32"]
    submit = job("jobs/demo.py", f"output.root={tmp_path}", *short, script="jobs/submit_local.py")
    done = subprocess.run(submit, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # One step teaches nothing, so the demo says that it did not work: exit code 1, after a whole run.
    assert done.returncode == 1, done.stdout[-4000:]
    assert "held-out accuracy, all levels" in done.stdout
    assert [row["stage"] for row in read_metrics(only_run(tmp_path))] == ["sft", "grpo"]
