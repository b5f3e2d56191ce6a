"""Mistakes of people who evaluate and compare: one message, exit code 2, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.models import save_tiny_model

OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9"}


def run(script: str, *arguments: object, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, f"jobs/{script}.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | OFFLINE | env, timeout=240
    )


def message(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    error = done.stderr[done.stderr.index("error: ") :]
    assert len(error.strip().splitlines()) <= 2 and len(error) < 900
    return error


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def _adapter(directory: Path, base: str, **settings: object) -> Path:
    """An adapter as peft writes it, for a layer of 8 x 8 that no model here has."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": 2, "lora_alpha": 4}
    (directory / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]} | settings))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    tensors = {name.format("A"): torch.zeros(2, 8), name.format("B"): torch.zeros(8, 2)}
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def test_a_model_that_is_not_there(tmp_path):
    done = run("evaluate", "model=./no_such_model", f"output.root={tmp_path}/runs")
    assert "model directory ./no_such_model does not exist" in message(done)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dataset=gsm9k"], "dataset must be registered"),
        (["dataset=/nowhere/data.jsonl"], "/nowhere/data.jsonl does not exist"),
        (["dataset=gsm8k"], "data openai/gsm8k cannot be downloaded"),
        (["dataset=combibench"], "Set data_root"),
        (["problems.levels=['9']"], "got 0 of 1000 after"),
        (["rollout.num_samples=8"], "rollout.temperature must be above 0"),
        (["rollout.num_sample=8"], "Did you mean rollout.num_samples?"),
        (["prompt.template=Solve {problem}"], "must hold {question}"),
        (["guard.train_data=[embedded:arithmetik]"], "data.name must be embedded:arithmetic or"),
        (["--resume", "/nowhere"], "/nowhere must be an evaluation's directory"),
        (["--resume", "latest"], "there is no run under"),
    ],
)
def test_a_mistake_is_named_in_one_message(tmp_path, model, arguments, named):
    done = run("evaluate", f"model={model}", f"output.root={tmp_path}/runs", *arguments, HF_HOME=str(tmp_path / "hub"))
    assert named in message(done)
    assert not (tmp_path / "runs").exists()


def test_data_without_answers(tmp_path, model):
    data = tmp_path / "test.jsonl"
    data.write_text('{"question": "Prove it.", "answer": null}\n')
    done = run("evaluate", f"model={model}", f"dataset={data}", "data.eval_split=train", f"output.root={tmp_path}/runs")
    assert "must have rows with a question and a gold answer, and has none in 1 rows" in message(done)


def test_a_run_without_a_final_model(tmp_path, model):
    run_dir = tmp_path / "exp_1"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "experiment_config.json").write_text("{}")
    assert "has neither yet" in message(run("evaluate", f"model={run_dir}", f"output.root={tmp_path}/runs"))
    (run_dir / "checkpoints" / "step_000001").mkdir()
    assert "checkpoints/checkpoint_last" in message(run("evaluate", f"model={run_dir}", f"output.root={tmp_path}/runs"))


@pytest.mark.slow
def test_an_adapter_for_another_base(tmp_path, model):
    """Found when it is merged, before any engine starts."""
    adapter = _adapter(tmp_path / "adapter", str(model))
    done = run("evaluate", f"model={adapter}", "problems.max_problems=4", f"output.root={tmp_path}/runs")
    assert "must fit its base" in message(done) and "was trained for another" in message(done)


def test_an_adapter_whose_base_is_gone_or_not_named(tmp_path):
    adapter = _adapter(tmp_path / "gone", "/nowhere/base")
    done = run("evaluate", f"model={adapter}", f"output.root={tmp_path}/runs")
    assert "/nowhere/base does not exist" in message(done) and "Set loading.base" in message(done)
    nameless = _adapter(tmp_path / "nameless", "")
    assert "names no base model" in message(run("evaluate", f"model={nameless}", f"output.root={tmp_path}/runs"))


def test_a_dry_run_starts_nothing(tmp_path, model):
    done = run("evaluate", f"model={model}", f"output.root={tmp_path}/runs", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1000 problems of 1000 rows" in done.stdout and "nothing was started" in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", ["evaluate", "compare"])
def test_help_imports_nothing_heavy(script):
    code = f"""if True:
        import sys, runpy
        sys.argv = ["{script}.py", "--help"]
        try: runpy.run_path("jobs/{script}.py", run_name="__main__")
        except SystemExit: pass
        assert not {{"torch", "ray", "pydantic", "transformers"}} & set(sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_there_is_nothing_to_compare(tmp_path):
    assert "must be an evaluation's directory" in message(run("compare", tmp_path))
