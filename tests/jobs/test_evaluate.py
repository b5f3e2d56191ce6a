"""User errors of jobs/evaluate.py and jobs/compare.py: one message, exit code 2, nothing left behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import compare, evaluate
from tests.conftest import ROOT
from tests.support.evaluations import write_evaluation
from tests.support.models import save_tiny_model

Message = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def message(capsys, monkeypatch) -> Message:
    """Runs a job's main function, which must fail with one message; returns the message."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(main: Callable[[list[str]], None], *arguments: object) -> str:
        with pytest.raises(SystemExit) as ending:
            main(list(map(str, arguments)))
        assert ending.value.code == 2
        stderr = capsys.readouterr().err
        error = stderr[stderr.index("error: ") :]
        assert len(error.strip().splitlines()) <= 2 and len(error) < 900 and "Traceback" not in stderr
        return error

    return run


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A hub that does not answer, and empty caches."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


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


def test_a_model_that_does_not_exist(tmp_path, message):
    error = message(evaluate.main, "model=./no_such_model", f"output.root={tmp_path}/runs")
    assert "model directory ./no_such_model does not exist" in error
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
def test_a_user_error_is_named_in_one_message(tmp_path, model, message, offline, arguments, named):
    assert named in message(evaluate.main, f"model={model}", f"output.root={tmp_path}/runs", *arguments)
    assert not (tmp_path / "runs").exists()


def test_data_without_answers(tmp_path, model, message):
    data = tmp_path / "test.jsonl"
    data.write_text('{"question": "Prove it.", "answer": null}\n')
    settings = [f"dataset={data}", "data.eval_split=train", f"output.root={tmp_path}/runs"]
    error = message(evaluate.main, f"model={model}", *settings)
    assert "must have rows with a question and a gold answer, and has none in 1 rows" in error


def test_a_run_without_a_final_model(tmp_path, message):
    run_dir = tmp_path / "exp_1"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "experiment_config.json").write_text("{}")
    arguments = [f"model={run_dir}", f"output.root={tmp_path}/runs"]
    assert "has neither yet" in message(evaluate.main, *arguments)
    (run_dir / "checkpoints" / "step_000001").mkdir()
    assert "checkpoints/checkpoint_last" in message(evaluate.main, *arguments)


def test_an_adapter_for_another_base_is_found_before_anything_starts(tmp_path, model, message):
    adapter = _adapter(tmp_path / "adapter", str(model))
    error = message(evaluate.main, f"model={adapter}", "problems.max_problems=4", f"output.root={tmp_path}/runs")
    assert "must fit its base" in error and "was trained for another" in error
    assert not (tmp_path / "runs").exists()


def test_an_adapter_whose_base_is_missing_or_not_named(tmp_path, message):
    adapter = _adapter(tmp_path / "gone", "/nowhere/base")
    error = message(evaluate.main, f"model={adapter}", f"output.root={tmp_path}/runs")
    assert "/nowhere/base does not exist" in error and "Set loading.base" in error
    nameless = _adapter(tmp_path / "nameless", "")
    assert "names no base model" in message(evaluate.main, f"model={nameless}", f"output.root={tmp_path}/runs")


def test_a_dry_run_starts_nothing(tmp_path, model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    evaluate.main([f"model={model}", f"output.root={tmp_path}/runs", "--dry-run"])
    printed = capsys.readouterr().out
    assert "1000 problems of 1000 rows" in printed and "nothing was started" in printed
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


def test_there_is_nothing_to_compare(tmp_path, message):
    assert "must be an evaluation's directory" in message(compare.main, tmp_path)


def test_two_evaluations_are_compared_in_a_table_and_a_file(tmp_path, capsys):
    a = write_evaluation(tmp_path / "a", "base", ["9"] * 6)
    b = write_evaluation(tmp_path / "b", "tuned", list("012345"))
    compare.main([str(a), str(b), "--json", str(tmp_path / "result.json")])
    printed = capsys.readouterr().out
    assert "answer accuracy on shared problems" in printed and "tuned is better than base: +100.0 points" in printed
    (comparison,) = json.loads((tmp_path / "result.json").read_text())["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["verdict"]) == ("base", "tuned", "better")
