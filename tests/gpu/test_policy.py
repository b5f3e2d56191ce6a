"""Loading, adapters and merging on the device, against the same on the CPU."""

import pytest
import torch

from pipeline.config import LoraConfig, ModelConfig
from pipeline.models.policy import (
    load_policy,
    load_trainable,
    merged_weights,
    save_final_model,
    snapshot,
    swapped_in,
    trainable_tensors,
    weights_digest,
)
from tests.gpu.conftest import NEEDS_GPU
from tests.support.models import tiny_llama, tiny_tokenizer

TOKENS = torch.tensor([[5, 17, 200, 31, 8, 90]])
LORA = LoraConfig(r=4, alpha=8.0)
VARIANTS = {"full": None, "lora": LORA, "pissa": LoraConfig(r=4, alpha=8.0, init="pissa")}


def load(path, device, **changes):
    settings = {"dtype": "float32", "device": device.type, **changes}
    torch.manual_seed(0)
    return load_policy(path, ModelConfig.model_validate({"name": "tiny", **settings}))


def trained(path, device, lora=None, **changes):
    """With noise on all trainable tensors, the same on every device, so that adapters have an effect."""
    model = load(path, device, lora=lora, **changes)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable_tensors(model).values():
            parameter.add_(torch.randn(parameter.shape).to(parameter), alpha=0.05)
    return model


@torch.no_grad()
def logits_of(model):
    device = next(model.parameters()).device
    return model.eval()(input_ids=TOKENS.to(device)).logits.float().cpu()


def test_a_loaded_policy_is_on_the_device_and_computes_as_on_the_cpu(tiny_model, device):
    model = load(tiny_model, device)
    assert {parameter.device.type for parameter in model.parameters()} == {device.type}
    torch.testing.assert_close(logits_of(model), logits_of(tiny_llama()), rtol=1e-4, atol=1e-4)
    assert weights_digest(model) == weights_digest(tiny_llama())


@pytest.mark.gpu
@NEEDS_GPU
def test_auto_takes_the_gpu(tiny_model):
    model = load_policy(tiny_model, ModelConfig(name="tiny", dtype="float32"))
    assert next(model.parameters()).device.type == "cuda"


def test_adapters_have_the_master_dtype_and_the_base_its_own(tiny_model, device):
    model = load(tiny_model, device, dtype="bfloat16", lora=LORA)
    assert {p.dtype for p in trainable_tensors(model).values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.device.type for p in model.parameters()} == {device.type}
    full = load(tiny_model, device, dtype="bfloat16")
    assert {p.dtype for p in full.parameters()} == {torch.float32}


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_and_saved_weights_compute_what_the_policy_computes(tiny_model, device, tmp_path, variant):
    model = trained(tiny_model, device, VARIANTS[variant])
    expected = logits_of(model)
    plain = tiny_llama().to(device)
    plain.load_state_dict(dict(merged_weights(model, torch.float32)), strict=False)
    torch.testing.assert_close(logits_of(plain), expected, rtol=1e-3, atol=1e-3)
    save_final_model(model, tiny_tokenizer(), tmp_path, torch.float32)
    torch.testing.assert_close(logits_of(load(tmp_path, torch.device("cpu"))), expected, rtol=1e-3, atol=1e-3)


def test_a_policy_takes_weights_from_the_cpu_and_swaps_a_reference_in(tiny_model, device):
    model, other = load(tiny_model, device, lora=LORA), trained(tiny_model, torch.device("cpu"), LORA)
    reference, before = snapshot(model), logits_of(model)
    load_trainable(model, trainable_tensors(other))
    assert weights_digest(model) == weights_digest(other)
    torch.testing.assert_close(logits_of(model), logits_of(other), rtol=1e-4, atol=1e-4)
    with swapped_in(model, reference):
        assert torch.equal(logits_of(model), before)
    assert weights_digest(model) == weights_digest(other)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_recomputed_activations_give_the_same_gradients(tiny_model, device, lora):
    def gradients(checkpointed: bool):
        model = trained(tiny_model, device, lora, gradient_checkpointing=checkpointed).train()
        tokens = TOKENS.to(device)
        model(input_ids=tokens, labels=tokens).loss.backward()
        return [parameter.grad for parameter in trainable_tensors(model).values()]

    for gradient, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
