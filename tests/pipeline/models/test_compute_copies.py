"""Copies of the weights in the dtype that a model computes in."""

import gc
import weakref

import pytest
import torch
from torch import nn

from pipeline.models.compute_copies import computing_in
from pipeline.training.batching import micro_batches
from pipeline.training.sft import token_losses
from tests.support.models import tiny_llama
from tests.support.sequences import sequence

BF16 = torch.bfloat16


class Scale(nn.Module):
    _keep_in_fp32_modules_strict = ("kept",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0 + 2**-10]))
        self.kept = nn.Parameter(torch.tensor([1.0 + 2**-10]))
        self.frozen = nn.Parameter(torch.tensor([1.0 + 2**-10]), requires_grad=False)


def test_weights_are_rounded_within_the_block_alone():
    model = Scale()
    originals = list(model.parameters())
    with computing_in(model, BF16):
        assert (model.weight.dtype, model.frozen.dtype, model.kept.dtype) == (BF16, BF16, torch.float32)
        assert model.weight.item() == 1.0  # 8 bits
        assert model.weight.requires_grad and not model.frozen.requires_grad
    assert all(before is after for before, after in zip(originals, model.parameters(), strict=True))


def test_gradients_are_summed_in_float32():
    model = Scale()
    with computing_in(model, BF16):
        for gradient in (1.0, 2**-10):  # the sum has no bfloat16
            (model.weight * gradient).sum().backward()
    assert model.weight.grad is not None and model.weight.grad.item() == 1.0 + 2**-10
    assert model.weight.grad.dtype == torch.float32


def test_float32_copies_nothing():
    model = Scale()
    with computing_in(model, torch.float32):
        inside = model.weight
    assert inside is model.weight


@pytest.mark.parametrize("learns", [False, True])
def test_copies_are_freed_after_the_block(learns):
    model = Scale()
    with computing_in(model, BF16):
        copies = [weakref.ref(model.weight), weakref.ref(model.frozen)]
        if learns:
            model.weight.sum().backward()
    gc.collect()
    assert [copy() for copy in copies] == [None, None]


def test_an_error_leaves_the_weights_in_place():
    model = Scale()
    weight = model.weight
    with pytest.raises(RuntimeError, match="no"), computing_in(model, BF16):
        raise RuntimeError("no")
    assert model.weight is weight


@pytest.mark.parametrize("checkpointing", [False, True])
def test_tied_weights_learn_as_under_autocast(checkpointing):
    model = tiny_llama(tie_word_embeddings=True).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    (batch,) = micro_batches([sequence(3, 20, seed) for seed in range(4)], 1000, torch.device("cpu"))

    def gradients(dtype: torch.dtype, *, copies: bool) -> torch.Tensor:
        model.zero_grad()
        with computing_in(model, dtype if copies else torch.float32):
            token_losses(model, batch, dtype)[0].sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact, autocast, copied = (gradients(*each[:1], copies=each[1]) for each in SETTINGS)
    assert copied.shape == exact.shape
    assert not torch.equal(copied, autocast)
    assert (copied - exact).norm() < 2 * (autocast - exact).norm() < 0.1 * exact.norm()


SETTINGS = ((torch.float32, False), (BF16, False), (BF16, True))
