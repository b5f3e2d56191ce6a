"""Finding the models that a user names."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError, ModelError
from pipeline.evaluation.models import checkpoint_config, find_model, unique_labels
from pipeline.runs.directory import RunDirectory
from tests.support.evaluations import FLOAT, run_config
from tests.support.models import save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "base")


def test_a_finished_run_is_its_final_model(base, tmp_path):
    run = RunDirectory.create(run_config(base, tmp_path))
    shutil.copytree(base, run.final_model)
    for name in (run.path, run.final_model):
        model = find_model("r", str(name), FLOAT)
        assert model.path == run.final_model and model.run and model.run.path == run.path


def test_a_search_has_no_single_result(base, tmp_path):
    run = RunDirectory.create(run_config(base, tmp_path))
    (run.path / "stages").mkdir()
    with pytest.raises(CheckpointError, match="checkpoints/CHAIN/checkpoint_last"):
        find_model("s", str(run.path), FLOAT)


@pytest.mark.parametrize("kind", ["NOPE", "PROMPT_TUNING", None])
def test_only_lora_can_be_merged(base, tmp_path, kind):
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": kind, "base_model_name_or_path": str(base)}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="must be LoRA, got peft_type"):
        find_model("a", str(tmp_path / "adapter"), FLOAT)


def test_remote_code_runs_only_if_this_evaluation_allows_it(base, tmp_path):
    """Whatever the configuration of the run says, which may be somebody else's."""
    config = run_config(base, tmp_path)
    run = RunDirectory.create(
        config.model_copy(update={"model": config.model.model_copy(update={"trust_remote_code": True})})
    )
    assert run.load_config().model.trust_remote_code and not checkpoint_config(run, FLOAT).trust_remote_code


def test_pickled_adapters_are_never_loaded(base, tmp_path):
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    (tmp_path / "adapter" / "adapter_model.bin").touch()
    with pytest.raises(ModelError, match=r"must have adapter_model.safetensors.*never loaded"):
        find_model("a", str(tmp_path / "adapter"), FLOAT)


def test_a_changed_file_changes_the_fingerprint(base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "copy")
    before = find_model("m", str(copy), FLOAT).fingerprint
    assert find_model("m", str(copy), FLOAT).fingerprint == before
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes())
    assert find_model("m", str(copy), FLOAT).fingerprint != before


def test_labels_are_short_where_they_can_be(tmp_path):
    runs = [tmp_path / root / "exp_1" / "checkpoints" / "step_1" for root in ("a", "b")]
    for run in runs:
        run.mkdir(parents=True)
    one = str(runs[0])
    assert list(unique_labels({one: one, "some/model": "some/model"})) == [
        ("exp_1/step_1", one),
        ("some/model", "some/model"),
    ]
    both = {str(run): str(run) for run in runs}
    assert list(unique_labels(both)) == [(name, name) for name in both]
    assert list(unique_labels({"tuned": one})) == [("tuned", one)]
