"""What is handed over, against the files of models whose names or tensors differ in memory."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import LoraConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.models.policy import empty_policy, load_policy, merged_weights, save_final_model, weight_specs
from pipeline.models.weight_names import check_weight_names, saved_shapes
from tests.support.models import save_tiny_model, save_tiny_moe, tiny_tokenizer

LORA = LoraConfig(r=2, alpha=4, target_modules=["q_proj"])
BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


@pytest.fixture(scope="module")
def moe(tmp_path_factory) -> Path:
    return save_tiny_moe(tmp_path_factory.mktemp("moe"))


def load(path: Path, lora: LoraConfig | None = None):
    return load_policy(path, ModelConfig(name="tiny", device="cpu", dtype="bfloat16", lora=lora))


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_mixture_of_experts_is_handed_over_as_it_is_in_its_files(moe, lora):
    """Experts one by one, and the router's bias, in its own float32."""
    files, model = load_file(moe / "model.safetensors"), load(moe, lora)
    check_weight_names(model, moe, "tiny")
    handed_over = dict(merged_weights(model, torch.bfloat16))
    assert handed_over.keys() == files.keys()
    assert torch.equal(handed_over[BIAS], files[BIAS])
    assert all(torch.equal(handed_over[name], files[name].bfloat16()) for name in files if name != BIAS)


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_final_mixture_of_experts_has_everything_the_first_one_had(moe, lora, tmp_path):
    save_final_model(load(moe, lora), tiny_tokenizer(), tmp_path, torch.bfloat16)
    final, files = load_file(tmp_path / "model.safetensors"), load_file(moe / "model.safetensors")
    assert final.keys() == files.keys()
    assert torch.equal(final[BIAS], files[BIAS])


@pytest.mark.parametrize("make", [save_tiny_model, save_tiny_moe])
def test_specs_are_those_of_what_is_handed_over(make, tmp_path):
    model = load(make(tmp_path), LORA)
    handed_over = [(name, t.dtype, tuple(t.shape)) for name, t in merged_weights(model, torch.bfloat16)]
    assert weight_specs(model, torch.bfloat16) == handed_over


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lora", [None, LORA])
def test_tied_embeddings_are_one_weight_by_either_name(tied, lora, tmp_path):
    path = save_tiny_model(tmp_path, tie_word_embeddings=tied)
    check_weight_names(load(path, lora), path, "tiny")
    if tied:
        files = load_file(path / "model.safetensors")
        for name in ("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"):
            save_file({**files, name: files["model.embed_tokens.weight"].clone()}, path / "model.safetensors")
            check_weight_names(load(path, lora), path, "tiny")


def test_weights_that_are_left_out_or_made_up_are_named(tmp_path):
    path = save_tiny_model(tmp_path)
    model, files = load(path), load_file(path / "model.safetensors")
    save_file({**files, "model.layers.0.mlp.gate.bias": torch.zeros(2)}, path / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 left out \['model\.layers\.0\.mlp\.gate\.bias'\] and 0 added"):
        check_weight_names(model, path, "tiny")
    files.pop("model.norm.weight")
    save_file(files, path / "model.safetensors")
    with pytest.raises(ModelError, match=r"0 left out \[\] and 1 added \['model\.norm\.weight'\]"):
        check_weight_names(model, path, "tiny")


def test_shapes_are_read_from_all_of_several_files(tmp_path):
    assert saved_shapes(tmp_path) is None
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1", "b": "2", "c": "2"}}))
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "1")
    save_file({"b": torch.zeros(4)}, tmp_path / "2")
    assert saved_shapes(tmp_path) == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_hidden_layers": 3}, r"0 left out \[\] and 9 added \['model\.layers\.2\."),
        ({"num_hidden_layers": 1}, r"9 left out \['model\.layers\.1\."),
        ({"intermediate_size": 80}, r"got 6 others: .*down_proj\.weight is \[64, 96\] in its files, not \[64, 80\]"),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_weights_that_do_not_fit_the_configuration_are_named_without_loading_them(tmp_path, tied, setting, message):
    path = save_tiny_model(tmp_path, tie_word_embeddings=tied)
    check_weight_names(empty_policy(path, ModelConfig(name="tiny")), path, "tiny")
    configure(path, setting)
    with pytest.raises(ModelError, match=message):
        check_weight_names(empty_policy(path, ModelConfig(name="tiny")), path, "tiny")


def test_a_mixture_of_experts_fits_its_files_without_loading_them(moe):
    check_weight_names(empty_policy(moe, ModelConfig(name="tiny")), moe, "tiny")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"intermediate_size": 80}, "weights of the shapes that its config.json says"),
        ({"hidden_size": "x"}, "got StrictDataclassFieldValidationError: .*'hidden_size' expected int"),
        ({"num_attention_heads": 3}, "not a multiple of the number of attention heads"),
        ({"num_attention_heads": 0}, "got ZeroDivisionError"),
        ({"hidden_act": "foo"}, "got KeyError: 'foo'"),
    ],
)
def test_a_configuration_that_cannot_be_loaded_is_an_error_of_the_model(tmp_path, setting, message):
    path = save_tiny_model(tmp_path)
    configure(path, setting)
    with pytest.raises(ModelError, match=message):
        load(path)


def configure(path: Path, setting: dict[str, object]) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | setting))
