"""User errors: one short message that names the setting or file, exit code 2, no traceback, no run directory."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import demo
from pipeline.config import load_config
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import RunDirectory
from tests.conftest import CONFIGS, ROOT
from tests.support.hub import UNREACHABLE, use_hub
from tests.support.models import save_tiny_model


@pytest.fixture
def run_job(monkeypatch, capsys) -> Callable[..., str]:
    """Runs a job in this process, in the project's directory. Returns what it printed."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: str, script: str = "grpo_qwen") -> str:
        importlib.import_module(f"jobs.{script}").main(list(arguments))
        return capsys.readouterr().out

    return run


@pytest.fixture
def error_of(run_job, capsys) -> Callable[..., str]:
    """Runs a job that must end with exit code 2. Returns the message."""

    def run(*arguments: str, script: str = "grpo_qwen") -> str:
        with pytest.raises(SystemExit) as ended:
            run_job(*arguments, script=script)
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        return shown[shown.index("error: ") :]

    return run


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
def test_a_user_error_is_named_in_one_message(tmp_path, monkeypatch, error_of, arguments, named):
    use_hub(monkeypatch, UNREACHABLE, tmp_path)
    if "--config" not in arguments:
        arguments = ["--config", "configs/demo.yaml", *arguments]
    error = error_of(*arguments, f"output.root={tmp_path / 'runs'}")
    assert named in error
    assert len(error.strip().splitlines()) <= 2 and len(error) < 600
    assert no_run(tmp_path)


SEARCH_MISTAKES = {
    "no search": (["--config", "configs/demo.yaml"], "a search must have a section search"),
    "wrong key": (["search.grid={curriculum: {replay_ration: [0.1]}}"], "replay_ration"),
    "other engines": (["search.grid={rollout: {temperature: [0.5]}}"], "temperature=0.5"),
    "no such level": (["curriculum.levels=['9']"], "got ['9']"),
    "nothing to compare": (["eval.problems_per_level=0"], "eval.problems_per_level"),
    "too small a budget": (["search.halving={budget_stages: 3}"], "search.halving.budget_stages"),
}


@pytest.mark.parametrize(("arguments", "named"), SEARCH_MISTAKES.values(), ids=SEARCH_MISTAKES)
def test_a_user_error_in_a_search_is_named_in_one_message(tmp_path, error_of, arguments, named):
    assert named in error_of(*arguments, f"output.root={tmp_path / 'runs'}", script="search_replay")
    assert no_run(tmp_path)


def test_a_run_is_not_resumed_as_a_search(tmp_path, error_of):
    RunDirectory.create(load_config(CONFIGS / "search_replay_demo.yaml", [f"output.root={tmp_path}"]))
    error = error_of("--resume", "latest", f"output.root={tmp_path}", script="search_replay")
    assert "must be resumed by the job that started it" in error


@pytest.mark.slow
def test_what_the_cluster_lacks_is_named_and_the_process_ends_with_code_2(tmp_path):
    """A process of its own, with a Ray of its own."""
    root, env = tmp_path / "runs", {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "jobs/demo.py", "--config", "configs/demo.yaml", "learner.num_gpus=3"]
    done = subprocess.run(
        [*command, "model.device=cuda", f"output.root={root}"], cwd=ROOT, capture_output=True, text=True, env=env
    )
    assert done.returncode == 2 and "the cluster must have 3 GPUs free for all actors, got 0" in done.stderr
    assert "Traceback" not in done.stderr and no_run(tmp_path)


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    from actors.handles import ActorHandles
    from tests.support.in_process import run_without_ray
    from tests.support.loops import LocalHandle, LocalStore

    (tmp_path / "file").touch()  # root may write anywhere, but not below a file
    arguments = ["--config", CONFIGS / "demo.yaml", f"output.root={tmp_path / 'file' / 'runs'}"]
    with pytest.raises(SystemExit) as ended:
        run_without_ray(ActorHandles((), (), LocalHandle(LocalStore())), demo.main, *arguments)
    assert ended.value.code == 2 and "output.root must be writable" in capsys.readouterr().err


def test_a_corrupt_checkpoint_is_named(tmp_path, error_of):
    import torch

    run = RunDirectory.create(load_config(CONFIGS / "demo.yaml", [f"output.root={tmp_path}"]))
    path = run.checkpoints.save(Progress("sft", 3, 3), {"w": torch.zeros(2)}, {}, None)
    (path / "policy.safetensors").write_bytes(b"\0" * 10)
    assert f"checkpoint {path} is corrupt" in error_of("--resume", "latest", f"output.root={tmp_path}")


HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print([name for name in ("torch", "ray", "vllm", "pydantic", "transformers") if name in sys.modules])
"""


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "jobs").glob("[a-z]*.py")))
def test_help_imports_nothing_that_takes_long(script):
    command = [sys.executable, "-c", HELP, f"jobs/{script}.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout and done.stdout.endswith("[]\n")


EMBEDDED = ["demo", "curriculum_then_grpo", "search_replay_demo"]


@pytest.mark.parametrize("config", [*EMBEDDED, "grpo_smollm2_gsm8k", "grpo_qwen2.5_1.5b"])
def test_a_dry_run_shows_actors_and_package_and_starts_nothing(tmp_path, run_job, config):
    model = save_tiny_model(tmp_path / "model")
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(
            json.dumps({"question": "1 + 1?", "answer": "1 + 1 = 2 #### 2"}) + "\n"
        )
    local = [] if config in EMBEDDED else [f"model.name={model}", f"data.name={tmp_path / 'data'}"]
    shown = run_job("--config", f"configs/{config}.yaml", "--dry-run", *local, f"output.root={tmp_path / 'runs'}")
    for text in ("dtype", "learner", "rollout", "reward", "GPUs each", "package", "nothing was started"):
        assert text in shown
    assert not local or "GiB (weights " in shown  # estimated for a model that is on this machine
    assert "auto" not in shown  # decided for this machine
    assert not (tmp_path / "runs").exists()
