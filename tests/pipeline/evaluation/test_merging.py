"""Merging adapters and checkpoints into their base."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.config import Config
from pipeline.errors import ModelError
from pipeline.evaluation.merging import check_fit, load_directory
from pipeline.evaluation.models import find_model
from pipeline.models.policy import load_policy, merged_weights, save_adapter, trainable_tensors
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import RunDirectory
from tests.support.evaluations import FLOAT, run_config
from tests.support.models import save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "base")


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
    weights = _weights(directory)
    for name, expected in merged_weights(policy, torch.float32):
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=1e-6)


def test_a_directory_with_a_model_is_loaded_as_it_is(base, tmp_path):
    model = find_model("m", str(base), FLOAT)
    assert (model.kind, model.path, model.run) == ("model", base, None)
    assert load_directory(model, FLOAT, tmp_path / "scratch") == base and not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_an_adapter_is_merged_into_the_base_it_names(base, tmp_path, init):
    config = run_config(base, tmp_path, {"r": 4, "init": init})
    initial = {name: t.detach().clone() for name, t in trainable_tensors(load_policy(base, config.model)).items()}
    policy = _trained(config, base)
    save_adapter(policy, config.model, tmp_path / "adapter", initial if init == "pissa" else None)
    model = find_model("a", str(tmp_path / "adapter"), FLOAT)
    assert (model.kind, model.base) == ("adapter", base)
    _assert_same(load_directory(model, FLOAT, tmp_path / "merged"), policy)


@pytest.mark.parametrize("lora", [None, {"r": 4}, {"r": 4, "init": "pissa"}], ids=["full", "lora", "pissa"])
def test_a_checkpoint_gives_the_weights_that_the_run_had_then(base, tmp_path, lora):
    config = run_config(base, tmp_path, lora)
    run, policy = RunDirectory.create(config), _trained(config, base)
    run.checkpoints.save(Progress("sft", 1, 1), trainable_tensors(policy), {}, None)
    model = find_model("c", str(run.checkpoints.path / "checkpoint_last"), FLOAT)
    assert (model.kind, model.path.name) == ("checkpoint", "step_000001") and model.run_config() == config
    _assert_same(load_directory(model, FLOAT, tmp_path / "merged"), policy)


def test_an_adapter_of_another_shape_or_other_layers_is_an_error(base, tmp_path):
    config = run_config(base, tmp_path, {"r": 4})
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


@pytest.mark.parametrize("kind", ["adapter", "checkpoint"])
def test_a_base_with_fewer_layers_than_its_configuration_is_an_error(tmp_path, kind):
    """Transformers would make up the third."""
    base = save_tiny_model(tmp_path / "base")
    config = run_config(base, tmp_path, {"r": 4})
    run, policy = RunDirectory.create(config), _trained(config, base)
    run.checkpoints.save(Progress("sft", 1, 1), trainable_tensors(policy), {}, None)
    save_adapter(policy, config.model, tmp_path / "adapter")
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 3}))
    path = tmp_path / "adapter" if kind == "adapter" else run.checkpoints.path / "checkpoint_last"
    with pytest.raises(ModelError, match=r"9 added \['model\.layers\.2\."):
        load_directory(find_model("m", str(path), FLOAT), FLOAT, tmp_path / "merged")
