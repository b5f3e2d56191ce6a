"""What is handed over, against the files of models whose names or tensors differ in memory."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import LoraConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.models.policy import load_policy, merged_weights, save_final_model, weight_specs
from pipeline.models.weight_names import check_weight_names, saved_names
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


def test_names_are_read_from_the_index_of_several_files(tmp_path):
    assert saved_names(tmp_path) is None
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1", "b": "2"}}))
    assert saved_names(tmp_path) == {"a", "b"}
