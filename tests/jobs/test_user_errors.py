"""A user's mistake: one short message that names the thing, exit code 2, no traceback, no run directory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import RunDirectory
from tests.conftest import ROOT
from tests.support.models import save_tiny_model


def run_job(*arguments: str, script: str = "grpo_qwen", **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, f"jobs/{script}.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | env, timeout=120)


def no_run(tmp_path: Path) -> bool:
    """Data may be in the cache already."""
    return {path.name for path in (tmp_path / "runs").glob("*")} <= {"data_cache"}


MISTAKES = {
    "wrong key": (["grpo.num_step=3"], "grpo.num_steps"),
    "wrong type": (["grpo.num_steps=many"], "grpo.num_steps"),
    "out of range": (["grpo.epsilon=7"], "grpo.epsilon"),
    "not key=value": (["grpo.num_steps"], "key=value"),
    "missing data file": (["data.name=/nowhere/gsm8k.jsonl"], "/nowhere/gsm8k.jsonl"),
    "missing model": (["model.name=./no_such_model"], "no_such_model"),
    "unknown reward": (["reward.functions=[{name: corectness}]"], "corectness"),
    "missing config": (["--config", "configs/nowhere.yaml"], "configs/nowhere.yaml"),
    "nothing to resume": (["--resume", "/nowhere/exp_1"], "/nowhere/exp_1"),
    "unreachable hub": (["data.name=openai/gsm8k"], "openai/gsm8k"),
    "no such level": (["stages=[{name: a, kind: sft, problems: {levels: ['9']}}]"], "stage a"),
}


@pytest.mark.parametrize(("arguments", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_one_message(tmp_path, arguments, named):
    if "--config" not in arguments:
        arguments = ["--config", "configs/demo.yaml", *arguments]
    done = run_job(
        *arguments, f"output.root={tmp_path / 'runs'}", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)
    )
    assert done.returncode == 2, done.stderr
    error = done.stderr[done.stderr.index("error: ") :]
    assert named in error and "Traceback" not in done.stderr
    assert len(error.strip().splitlines()) <= 2 and len(error) < 600
    assert no_run(tmp_path)


SEARCH_MISTAKES = {
    "no search": (["--config", "configs/demo.yaml"], "sections search and curriculum"),
    "wrong key": (["search.grid={curriculum: {replay_ration: [0.1]}}"], "replay_ration"),
    "other engines": (["search.grid={rollout: {temperature: [0.5]}}"], "temperature=0.5"),
    "no such level": (["curriculum.levels=['9']"], "got ['9']"),
    "nothing to compare": (["eval.problems_per_level=0"], "eval.problems_per_level"),
    "too small a budget": (["search.halving={budget_stages: 3}"], "search.halving.budget_stages"),
}


@pytest.mark.parametrize(("arguments", "named"), SEARCH_MISTAKES.values(), ids=SEARCH_MISTAKES)
def test_a_mistake_in_a_search_is_named_in_one_message(tmp_path, arguments, named):
    done = run_job(*arguments, f"output.root={tmp_path / 'runs'}", script="search_replay")
    assert done.returncode == 2, done.stderr
    assert named in done.stderr[done.stderr.index("error: ") :] and "Traceback" not in done.stderr
    assert no_run(tmp_path)


def test_a_run_is_not_resumed_as_a_search(tmp_path):
    RunDirectory.create(load_config(ROOT / "configs" / "search_replay_demo.yaml", [f"output.root={tmp_path}"]))
    done = run_job("--resume", "latest", f"output.root={tmp_path}", script="search_replay")
    assert done.returncode == 2 and "must be resumed by the job that started it" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_the_cluster_lacks_is_named(tmp_path):
    done = run_job(
        "--config", "configs/demo.yaml", f"output.root={tmp_path / 'runs'}", "learner.num_gpus=3", script="demo"
    )
    assert done.returncode == 2 and "the cluster must have 3 GPUs free for all actors, got 0" in done.stderr
    assert "Traceback" not in done.stderr and no_run(tmp_path)


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()  # root may write anywhere, but not below a file
    done = run_job("--config", "configs/demo.yaml", f"output.root={tmp_path / 'file' / 'runs'}", script="demo")
    assert done.returncode == 2 and "output.root must be writable" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corrupt_checkpoint_is_named(tmp_path):
    import torch

    run = RunDirectory.create(load_config(ROOT / "configs" / "demo.yaml", [f"output.root={tmp_path}"]))
    path = run.checkpoints.save(Progress("sft", 3, 3), {"w": torch.zeros(2)}, {}, None)
    (path / "policy.safetensors").write_bytes(b"\0" * 10)
    done = run_job("--resume", "latest", f"output.root={tmp_path}")
    assert done.returncode == 2 and f"checkpoint {path} is corrupt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "jobs").glob("[a-z]*.py")))
def test_help_answers_at_once(script):
    start = time.perf_counter()
    done = run_job("--help", script=script)
    assert done.returncode == 0 and "usage:" in done.stdout
    # A bound on what is imported: torch, ray or vllm alone take longer than this, even on a busy machine.
    assert time.perf_counter() - start < 10
    modules = run_python(
        f"import sys, jobs.{script}; print([m for m in ('torch', 'ray', 'vllm', 'pydantic') if m in sys.modules])"
    )
    assert modules.strip() == "[]"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


EMBEDDED = ["demo", "curriculum_then_grpo", "search_replay_demo"]


@pytest.mark.parametrize("config", [*EMBEDDED, "grpo_smollm2_gsm8k", "grpo_qwen2.5_1.5b"])
def test_a_dry_run_shows_actors_and_package_and_starts_nothing(tmp_path, config):
    model = save_tiny_model(tmp_path / "model")
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(
            json.dumps({"question": "1 + 1?", "answer": "1 + 1 = 2 #### 2"}) + "\n"
        )
    local = [] if config in EMBEDDED else [f"model.name={model}", f"data.name={tmp_path / 'data'}"]
    done = run_job("--config", f"configs/{config}.yaml", "--dry-run", *local, f"output.root={tmp_path / 'runs'}")
    assert done.returncode == 0, done.stderr
    for text in ("dtype", "learner", "rollout", "reward", "GPUs each", "package", "nothing was started"):
        assert text in done.stdout
    assert "auto" not in done.stdout  # settled for this machine
    assert not (tmp_path / "runs").exists()
