"""What a user may call a model."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.config import Config
from pipeline.config.evaluation import LoadingConfig
from pipeline.errors import CheckpointError, ModelError
from pipeline.evaluation.models import _checkpoint_config, check_fit, find_model, load_directory, unique_labels
from pipeline.models.policy import load_policy, merged_weights, save_adapter, trainable_tensors
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import RunDirectory
from tests.support.models import save_tiny_model

FLOAT = LoadingConfig(dtype="float32")


@pytest.fixture
def base(tmp_path) -> Path:
    return save_tiny_model(tmp_path / "base")


def _config(base: Path, root: Path, lora: dict | None = None) -> Config:
    model = {"name": str(base), "dtype": "float32", "device": "cpu", "lora": lora}
    stages = [{"name": "sft", "kind": "sft"}]
    return Config.model_validate({"model": model, "stages": stages, "output": {"root": str(root)}})


def _trained(config: Config, base: Path):
    """A policy with noise on all that trains, as training would leave it."""
    policy = load_policy(base, config.model)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in trainable_tensors(policy).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return policy


def _weights(directory: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).state_dict()


def _assert_same(directory: Path, policy) -> None:
    found = _weights(directory)
    for name, expected in merged_weights(policy, torch.float32):
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)


def test_a_directory_with_a_model_is_loaded_as_it_is(base, tmp_path):
    model = find_model("m", str(base), FLOAT)
    assert (model.kind, model.path, model.run) == ("model", base, None)
    assert load_directory(model, FLOAT, tmp_path / "scratch") == base and not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_an_adapter_is_merged_into_the_base_it_names(base, tmp_path, init):
    config = _config(base, tmp_path, {"r": 4, "init": init})
    initial = {name: t.detach().clone() for name, t in trainable_tensors(load_policy(base, config.model)).items()}
    policy = _trained(config, base)
    save_adapter(policy, config.model, tmp_path / "adapter", initial if init == "pissa" else None)
    model = find_model("a", str(tmp_path / "adapter"), FLOAT)
    assert (model.kind, model.base) == ("adapter", base)
    _assert_same(load_directory(model, FLOAT, tmp_path / "merged"), policy)


@pytest.mark.parametrize("lora", [None, {"r": 4}, {"r": 4, "init": "pissa"}], ids=["full", "lora", "pissa"])
def test_a_checkpoint_of_a_run_is_what_the_run_had_then(base, tmp_path, lora):
    config = _config(base, tmp_path, lora)
    run, policy = RunDirectory.create(config), _trained(config, base)
    run.checkpoints.save(Progress("sft", 1, 1), trainable_tensors(policy), {}, None)
    model = find_model("c", str(run.checkpoints.path / "checkpoint_last"), FLOAT)
    assert (model.kind, model.path.name) == ("checkpoint", "step_000001") and model.run_config() == config
    _assert_same(load_directory(model, FLOAT, tmp_path / "merged"), policy)


def test_a_finished_run_is_its_final_model(base, tmp_path):
    run = RunDirectory.create(_config(base, tmp_path))
    save_tiny_model(run.final_model)
    for name in (run.path, run.final_model):
        model = find_model("r", str(name), FLOAT)
        assert model.path == run.final_model and model.run and model.run.path == run.path


def test_a_search_has_no_single_result(base, tmp_path):
    run = RunDirectory.create(_config(base, tmp_path))
    (run.path / "stages").mkdir()
    with pytest.raises(CheckpointError, match="checkpoints/CHAIN/checkpoint_last"):
        find_model("s", str(run.path), FLOAT)


def test_an_adapter_of_another_shape_or_other_layers_is_an_error(base, tmp_path):
    config = _config(base, tmp_path, {"r": 4})
    save_adapter(_trained(config, base), config.model, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    for change in ({"r": 8}, {"target_modules": ["q_proj"]}, {"target_modules": ["no_such"]}):
        path.write_text(json.dumps(settings | change))
        model = find_model("a", str(tmp_path / "adapter"), FLOAT)
        with pytest.raises(ModelError, match=r"must fit its base .* trained for another"):
            check_fit(model, FLOAT)
    path.write_text(json.dumps(settings))
    check_fit(find_model("a", str(tmp_path / "adapter"), FLOAT), FLOAT)


@pytest.mark.parametrize("kind", ["NOPE", "PROMPT_TUNING", None])
def test_only_lora_can_be_merged(base, tmp_path, kind):
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": kind, "base_model_name_or_path": str(base)}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="must be of LoRA, got peft_type"):
        find_model("a", str(tmp_path / "adapter"), FLOAT)


def test_code_of_a_model_runs_only_where_this_evaluation_allows_it(base, tmp_path):
    """Whatever the configuration of a run says, which may be somebody else's."""
    config = _config(base, tmp_path)
    run = RunDirectory.create(
        config.model_copy(update={"model": config.model.model_copy(update={"trust_remote_code": True})})
    )
    assert run.load_config().model.trust_remote_code and not _checkpoint_config(run, FLOAT).trust_remote_code


def test_pickled_adapters_are_never_loaded(base, tmp_path):
    config = _config(base, tmp_path, {"r": 4})
    save_adapter(_trained(config, base), config.model, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"must have adapter_model.safetensors.*never loaded"):
        find_model("a", str(tmp_path / "adapter"), FLOAT)


def test_other_files_are_other_weights(base):
    before = find_model("m", str(base), FLOAT).fingerprint
    assert find_model("m", str(base), FLOAT).fingerprint == before
    save_tiny_model(base, seed=1)
    assert find_model("m", str(base), FLOAT).fingerprint != before


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
