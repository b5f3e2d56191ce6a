"""Log-probabilities and gradients against one sequence at a time in float32 on the CPU, with every attention."""

import math
from typing import Any

import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from pipeline.models.attention import CAUSAL_SDPA, use_causal_sdpa
from pipeline.training.logprobs import token_entropy, token_logprobs
from tests.gpu.conftest import NEEDS_GPU
from tests.support.models import tiny_llama
from tests.support.sequences import logprobs_and_gradients

LAYOUTS: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "pad_to_multiple_of": 8},
    "padded": {"packing": False},
}
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (0.02, 0.1)}
"""Largest relative errors of log-probabilities and of gradients."""


@pytest.fixture(scope="module")
def exact():
    return logprobs_and_gradients(tiny_llama().train(), 1)


def policy(attention: str, device: torch.device):
    model = tiny_llama().train().to(device)
    if attention == CAUSAL_SDPA:
        use_causal_sdpa(model)
    else:
        model.set_attn_implementation(attention)
    assert model.config._attn_implementation == attention
    return model


def assert_close_to(exact, model, dtype: torch.dtype, layout: str) -> None:
    logprobs, gradients = logprobs_and_gradients(model, 1000, dtype=dtype, **LAYOUTS[layout])
    largest_error, largest_gradient_error = TOLERANCES[dtype]
    assert all(each.dtype == torch.float32 for each in logprobs.values())
    assert relative_error(logprobs, exact[0]) < largest_error
    assert relative_error(gradients, exact[1]) < largest_gradient_error


def relative_error(actual: dict, expected: dict) -> float:
    squares = [(actual[key].detach().cpu().float() - value).square().sum().item() for key, value in expected.items()]
    return math.sqrt(sum(squares) / sum(value.square().sum().item() for value in expected.values()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("attention", [CAUSAL_SDPA, "sdpa", "eager"])
def test_logprobs_and_gradients_are_those_of_float32(device, exact, attention, dtype, layout):
    assert_close_to(exact, policy(attention, device), dtype, layout)


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.skipif(not is_flash_attn_2_available(), reason="flash-attn is not installed")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_flash_attention_agrees(exact, layout):
    assert_close_to(exact, policy("flash_attention_2", torch.device("cuda")), torch.bfloat16, layout)


@pytest.mark.gpu
@NEEDS_GPU
def test_flex_attention_agrees(exact):
    """In bfloat16 weights: older torch does not cast for it under autocast. Packed alone: compiling takes long."""
    model = policy("flex_attention", torch.device("cuda")).bfloat16()
    assert_close_to(exact, model, torch.bfloat16, "packed")


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_extreme_logits_have_the_logprobs_entropies_and_gradients_of_float64(device, dtype):
    torch.manual_seed(0)
    vocab_size = 300_000  # several blocks of rows on a CPU
    logits = (torch.randn(1, 5, vocab_size) * 5).to(dtype)
    logits[0, 0, 7] = -1e30
    logits[0, 1, 1:] = -1e4  # all probability on one token
    targets, weights = torch.tensor([[7, 0, 5, vocab_size - 1, 3]]), torch.tensor([[0.5, -2.0, 0.0, 1.0, 3.0]])
    leaf, wide = logits.to(device, copy=True).requires_grad_(), logits.to(torch.float64, copy=True).requires_grad_()
    actual = token_logprobs(leaf, targets.to(device), 0.7)
    everything = torch.log_softmax(wide / 0.7, dim=-1)
    expected = everything.gather(2, targets[..., None])[..., 0]
    (actual * weights.to(device)).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(actual.detach().cpu().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    entropy = -(everything.exp() * everything).sum(dim=-1).detach()
    torch.testing.assert_close(token_entropy(leaf.detach(), 0.7).cpu().double(), entropy, rtol=1e-4, atol=1e-5)
    assert leaf.grad is not None and wide.grad is not None and leaf.grad.dtype == dtype
    rtol = 1e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(leaf.grad.cpu().double(), wide.grad, rtol=rtol, atol=1e-6)
