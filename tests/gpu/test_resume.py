"""A run that is saved and resumed on the device continues as if it had not stopped."""

import pytest
import torch

from pipeline.config import LoraConfig, ModelConfig
from pipeline.models.policy import load_policy, load_trainable, snapshot, trainable_tensors
from pipeline.runs.checkpoints import CheckpointStore, Progress, load_checkpoint
from tests.support.learner_steps import adamw, sft_step
from tests.support.models import save_tiny_model
from tests.support.sequences import SEQUENCES

NOISE = 1e-3
"""On a GPU sums of gradients have no fixed order. Largest relative difference between what two runs learn."""


def policy(path, device, lora):
    torch.manual_seed(0)
    model = load_policy(path, ModelConfig(name="tiny", dtype="float32", device=device.type, lora=lora)).train()
    return model, adamw(model, 1e-2)


def steps(model, optimizer, count):
    for _ in range(count):
        sft_step(model, optimizer, SEQUENCES, dtype=torch.float32, max_tokens=32)


@pytest.mark.parametrize("lora", [None, LoraConfig(r=4, alpha=8.0)], ids=["full", "lora"])
def test_a_resumed_run_continues_like_one_that_never_stopped(tiny_model, device, tmp_path, lora):
    model, optimizer = policy(tiny_model, device, lora)
    start = snapshot(model)
    steps(model, optimizer, 2)
    path = CheckpointStore(tmp_path / "run").save(
        Progress("sft", 2, 2), trainable_tensors(model), optimizer.state_dict(), start
    )

    checkpoint = load_checkpoint(path)
    base = tiny_model if lora else save_tiny_model(tmp_path / "other", seed=1)  # under LoRA the base is not saved
    resumed, resumed_optimizer = policy(base, device, lora)
    load_trainable(resumed, checkpoint.tensors)
    resumed_optimizer.load_state_dict(checkpoint.optimizer)
    assert_same(trainable_tensors(resumed), trainable_tensors(model))
    assert checkpoint.reference is not None
    assert_same(checkpoint.reference, start)
    for own, other in zip(trainable_tensors(resumed).values(), trainable_tensors(model).values(), strict=True):
        assert_same(resumed_optimizer.state[own], optimizer.state[other])
        assert resumed_optimizer.state[own]["exp_avg"].device.type == device.type

    steps(model, optimizer, 2)
    steps(resumed, resumed_optimizer, 2)
    if device.type == "cpu":
        return assert_same(trainable_tensors(resumed), trainable_tensors(model))
    assert moved(trainable_tensors(model), trainable_tensors(resumed)) < NOISE * moved(trainable_tensors(model), start)


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    assert [name for name in actual if not torch.equal(actual[name].cpu(), expected[name].cpu())] == []


def moved(tensors, others) -> float:
    return sum((tensors[name] - others[name]).detach().square().sum().item() for name in tensors) ** 0.5
