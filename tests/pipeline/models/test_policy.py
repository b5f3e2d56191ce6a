import copy
import re

import pytest
import torch

from pipeline.config import LoraConfig, ModelConfig
from pipeline.errors import ModelError
from pipeline.models.pissa import lora_layers
from pipeline.models.policy import (
    load_policy,
    load_trainable,
    merged_weights,
    save_final_model,
    snapshot,
    swapped_in,
    trainable_tensors,
    turn_off_dropout,
)
from pipeline.models.tokenizer import load_tokenizer
from tests.support.models import save_tiny_model, tiny_llama, tiny_tokenizer

VARIANTS = {
    "full": None,
    "lora": LoraConfig(r=4, alpha=8.0),
    "rslora": LoraConfig(r=4, alpha=8.0, use_rslora=True),
    "pissa": LoraConfig(r=4, alpha=8.0, init="pissa"),
    "attention only": LoraConfig(r=4, alpha=8.0, init="gaussian", target_modules=["q_proj", "v_proj"]),
}
TOKENS = torch.tensor([[5, 17, 200, 31, 8, 90]])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def settings(**changes) -> ModelConfig:
    return ModelConfig(name="tiny", device="cpu", dtype="float32", **changes)


def trained(path, lora=None, **changes):
    """A policy as if after training: noise on all trainable tensors, so that adapters have an effect."""
    torch.manual_seed(0)
    model = load_policy(path, settings(lora=lora, **changes))
    with torch.no_grad():
        for parameter in trainable_tensors(model).values():
            parameter.add_(torch.randn(parameter.shape).to(parameter.dtype), alpha=0.05)
    return model


@torch.no_grad()
def logits_of(model):
    return model.eval()(input_ids=TOKENS).logits


def bits(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    assert [name for name in actual if not torch.equal(actual[name], expected[name])] == []


# Loading -----------------------------------------------------------------------------------------


def test_a_fresh_adapter_changes_nothing_and_trains_alone(path):
    model = load_policy(path, settings(lora=VARIANTS["lora"]))
    torch.testing.assert_close(logits_of(model), logits_of(tiny_llama()), rtol=0, atol=0)
    names = trainable_tensors(model)
    assert len(names) == 2 * 7 * 2  # A and B of seven modules in two layers
    assert all(".lora_" in name for name in names)


def test_without_lora_every_weight_trains(path):
    model = load_policy(path, settings())
    assert trainable_tensors(model).keys() == dict(tiny_llama().named_parameters()).keys()


def test_only_trainable_tensors_keep_the_master_dtype(path):
    lora = load_policy(path, ModelConfig(name="tiny", device="cpu", dtype="bfloat16", lora=VARIANTS["lora"]))
    assert {p.dtype for p in trainable_tensors(lora).values()} == {torch.float32}
    assert {p.dtype for p in lora.parameters() if not p.requires_grad} == {torch.bfloat16}
    full = load_policy(path, ModelConfig(name="tiny", device="cpu", dtype="bfloat16"))
    assert {p.dtype for p in full.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pissa_starts_from_the_model_itself(path, dtype):
    """The base stays as it is, and nothing is added to it."""
    plain, config = load_policy(path, ModelConfig(name="tiny", device="cpu", master_dtype=dtype)), VARIANTS["pissa"]
    model = load_policy(path, ModelConfig(name="tiny", device="cpu", dtype=dtype, lora=config))
    assert_same_bits(dict(merged_weights(model, torch.float32)), dict(merged_weights(plain, torch.float32)))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        torch.testing.assert_close(logits_of(model), logits_of(plain), rtol=0, atol=1e-5)


def test_pissa_learns_as_if_its_start_had_been_subtracted_from_the_base(path):
    """The gradients are those of (W - s B_0 A_0) x + s B A x."""
    model = load_policy(path, settings(lora=VARIANTS["pissa"]))
    layer = next(iter(lora_layers(model).values()))
    inputs = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0))
    layer(inputs).square().sum().backward()
    a, b = (factor["default"].weight.detach().clone().requires_grad_() for factor in (layer.lora_A, layer.lora_B))
    residual = layer.base_layer.weight - 2.0 * (b @ a).detach()  # alpha / r is 2
    (inputs @ residual.T + 2.0 * inputs @ a.T @ b.T).square().sum().backward()
    torch.testing.assert_close(layer.lora_A["default"].weight.grad, a.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.lora_B["default"].weight.grad, b.grad, rtol=1e-4, atol=1e-4)


def test_an_unknown_lora_target_is_answered_with_the_known_names(path):
    config = settings(lora=LoraConfig(target_modules=["q_proj", "query_proj"]))
    with pytest.raises(ModelError, match=r"\['query_proj'\].*'down_proj', 'gate_proj', .*'q_proj'.*'v_proj'"):
        load_policy(path, config)


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="model tiny cannot be loaded"):
        load_policy(tmp_path, settings())


def test_a_tokenizer_needs_a_chat_template(path, tmp_path):
    tokenizer = load_tokenizer(path, settings())
    assert tokenizer.decode([tokenizer.eos_token_id]) == "<|im_end|>"
    plain = tiny_tokenizer()
    plain.chat_template = None
    plain.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="must have a chat template"):
        load_tokenizer(tmp_path, settings())
    assert load_tokenizer(tmp_path, settings(), chat=False).eos_token_id == tokenizer.eos_token_id


# Dropout -----------------------------------------------------------------------------------------


def tiny_opt(**dropout):
    """Its layers call dropout as a function, on probabilities they hold as numbers, and are left out at random."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 259, "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return OPTForCausalLM(OPTConfig(word_embed_proj_dim=16, init_std=0.2, **sizes, **dropout))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_dropout_acts_whatever_its_form(checkpointing):
    model = tiny_opt(dropout=0.5, attention_dropout=0.5, layerdrop=0.5).train()
    expected = logits_of(tiny_opt())
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    turn_off_dropout(model)
    calls = []
    model.model.decoder.layers[0].fc1.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        logits = model(input_ids=TOKENS, use_cache=False).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    logits.sum().backward()
    assert len(calls) == (3 if checkpointing else 2)  # the backward pass recomputes one forward pass
    assert model.config.dropout == 0.5  # as the final model's files will say


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_differentiated_below_a_frozen_backbone(tmp_path, frozen):
    config = ModelConfig(name="-", device="cpu", dtype="float32", gradient_checkpointing=True)
    model: torch.nn.Module = load_policy(save_tiny_model(tmp_path / "model"), config, frozen=frozen)
    assert model.get_input_embeddings()(TOKENS).requires_grad is not frozen  # type: ignore[operator]


# Merging -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_merged_weights_are_those_of_peft(tmp_path, variant, tied):
    model = trained(save_tiny_model(tmp_path, tie_word_embeddings=tied), VARIANTS[variant])
    before = bits(model)
    merged = {name: tensor.clone() for name, tensor in merged_weights(model, torch.float32)}
    assert_same_bits(bits(model), before)
    plain = tiny_llama(tie_word_embeddings=tied)
    assert merged.keys() == dict(plain.named_parameters()).keys()
    expected = copy.deepcopy(model)
    expected = expected.merge_and_unload() if VARIANTS[variant] else expected
    for name, tensor in expected.named_parameters():
        torch.testing.assert_close(merged[name], tensor.detach(), rtol=0, atol=1e-6)
    changed = [name for name, tensor in plain.named_parameters() if not torch.allclose(merged[name], tensor, atol=1e-4)]
    assert len(changed) == {"full": len(merged), "attention only": 4}.get(variant, 14)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapter_on_a_tied_output_layer_is_merged_or_refused(tmp_path):
    lora = LoraConfig(r=4, alpha=8.0, target_modules=["lm_head", "q_proj"])
    try:
        model = trained(save_tiny_model(tmp_path, tie_word_embeddings=True), lora)
    except ModelError:
        return
    plain = tiny_llama(tie_word_embeddings=False)
    merged = dict(merged_weights(model, torch.float32))
    plain.load_state_dict({"lm_head.weight": merged["model.embed_tokens.weight"], **merged})
    torch.testing.assert_close(logits_of(plain), logits_of(model), rtol=0, atol=1e-4)


def test_merged_weights_come_in_the_dtype_asked_for(path):
    model = trained(path, VARIANTS["lora"])
    exact = dict(merged_weights(model, torch.float32))
    rounded = dict(merged_weights(model, torch.bfloat16))
    assert {tensor.dtype for tensor in rounded.values()} == {torch.bfloat16}
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)  # rounded once, after the sum


# The reference policy ----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["full", "lora", "pissa"])
def test_the_snapshot_is_the_policy_as_it_was(path, variant):
    model = trained(path, VARIANTS[variant])
    reference, before = snapshot(model), logits_of(model)
    with torch.no_grad():
        for parameter in trainable_tensors(model).values():
            parameter.add_(0.01)
    current, after = bits(model), logits_of(model)
    assert not torch.equal(before, after)
    with swapped_in(model, reference):
        assert torch.equal(logits_of(model), before)
    assert_same_bits(bits(model), current)
    assert torch.equal(logits_of(model), after)


def test_the_policy_comes_back_after_an_exception(path):
    model = trained(path)
    reference = {name: torch.zeros_like(tensor) for name, tensor in snapshot(model).items()}
    current, parameters = bits(model), list(model.parameters())
    with pytest.raises(RuntimeError, match="out of memory"), swapped_in(model, reference):
        assert not logits_of(model).any()
        raise RuntimeError("out of memory")
    assert_same_bits(bits(model), current)
    with pytest.raises(KeyError), swapped_in(model, {}):
        pass
    assert_same_bits(bits(model), current)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))  # what the optimizer holds


# Checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["full", "lora", "pissa"])
def test_loading_the_trainable_tensors_restores_the_policy(path, variant):
    model = trained(path, VARIANTS[variant])
    saved, expected = snapshot(model), logits_of(model)
    fresh = load_policy(path, settings(lora=VARIANTS[variant]))
    parameters = list(trainable_tensors(fresh).values())
    load_trainable(fresh, saved)
    assert torch.equal(logits_of(fresh), expected)
    assert all(a is b for a, b in zip(parameters, trainable_tensors(fresh).values(), strict=True))


def test_tensors_of_another_model_are_refused_and_nothing_is_loaded(path):
    model = trained(path, VARIANTS["lora"])
    saved, before = snapshot(model), bits(model)
    name = next(iter(saved))
    other_rank = snapshot(trained(path, LoraConfig(r=8)))
    missing = {key: tensor for key, tensor in saved.items() if key != name}
    for tensors in (other_rank, missing, {**saved, "extra": saved[name]}, {}):
        with pytest.raises(ModelError, match="another model or LoRA setting"):
            load_trainable(model, tensors)
        assert_same_bits(bits(model), before)
    with pytest.raises(ModelError, match=rf"1 differ \({re.escape(name)}\)"):
        load_trainable(model, missing)


# The final model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["full", "lora", "pissa"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_final_model_is_an_ordinary_checkpoint(tmp_path, variant, tied):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = trained(save_tiny_model(tmp_path / "start", tie_word_embeddings=tied), VARIANTS[variant])
    before = bits(model)
    save_final_model(model, tiny_tokenizer(), tmp_path / "final", torch.float32)
    assert_same_bits(bits(model), before)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "final", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(loaded).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=0, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "final")
    assert tokenizer.chat_template == tiny_tokenizer().chat_template
    assert tokenizer.decode(tokenizer.encode("2 + 3 = é")) == "2 + 3 = é"


def test_the_final_model_says_its_dtype(path, tmp_path):
    from transformers import AutoModelForCausalLM

    model = trained(path)
    save_final_model(model, tiny_tokenizer(), tmp_path, torch.bfloat16)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert not (tmp_path / "rounding.json").exists()
    assert model.config.dtype == torch.float32
