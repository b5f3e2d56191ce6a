from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from actors.learner.ranks import Ranks
from actors.learner.updater import PolicyUpdater
from pipeline.config import CarryConfig, LoraConfig, ModelConfig, SFTConfig, TrainerConfig
from pipeline.errors import CheckpointError
from pipeline.models.policy import load_policy, trainable_tensors
from pipeline.runs.checkpoints import CheckpointStore, Progress, load_checkpoint
from tests.support.models import save_tiny_model

SPECTRAL = TrainerConfig(name="SpectralRefactor", refactor_every=2, warmup_steps=2, cooldown_steps=0)


def linear() -> nn.Linear:
    """y = 2 x_0 - x_1."""
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[2.0, -1.0]])
    return model


def updater(model: nn.Module, trainer: TrainerConfig | None = None, **settings: float) -> PolicyUpdater:
    return PolicyUpdater(model, SFTConfig.model_validate(settings), trainer or TrainerConfig(), Ranks())


def weight(policy: PolicyUpdater) -> torch.Tensor:
    (tensor,) = policy.model.parameters()
    return tensor


def step(policy: PolicyUpdater, inputs: list[float], rate: float = 0.1, number: int = 1) -> float:
    policy.begin(rate)
    policy.model(torch.tensor([inputs])).sum().backward()  # the gradient is the inputs
    return policy.update(number, 10)[0]


def test_a_step_returns_the_norm_before_clipping_and_moves_each_weight_by_the_rate():
    policy = updater(linear(), max_grad_norm=1.0)
    assert step(policy, [3.0, 4.0]) == pytest.approx(5.0)
    # Adam's first step is rate x sign of the gradient, whatever clipping made of its size.
    torch.testing.assert_close(weight(policy).data, torch.tensor([[1.9, -1.1]]))
    assert policy.learning_rate == 0.1
    assert weight(policy).grad is None


def test_a_worker_without_gradients_takes_part_in_the_step():
    policy = updater(linear())
    policy.begin(0.1)
    norm, report = policy.update(1, 10)
    assert norm == 0 and report is None
    torch.testing.assert_close(weight(policy).data, torch.tensor([[2.0, -1.0]]))


def test_gradients_of_the_step_before_are_dropped():
    policy = updater(linear())
    policy.model(torch.tensor([[100.0, 100.0]])).sum().backward()
    assert step(policy, [3.0, 4.0]) == pytest.approx(5.0)


def test_within_the_block_the_model_is_the_reference_policy():
    policy = updater(linear())
    with pytest.raises(CheckpointError, match=r"Set grpo\.beta=0"):
        policy.reference_policy()
    policy.snapshot_reference()
    step(policy, [1.0, 1.0])
    trained = weight(policy).detach().clone()
    with policy.reference_policy():
        torch.testing.assert_close(weight(policy).data, torch.tensor([[2.0, -1.0]]))
    torch.testing.assert_close(weight(policy).data, trained)


def save(policy: PolicyUpdater, directory: Path) -> Path:
    store = CheckpointStore(directory)
    tensors: Mapping[str, torch.Tensor] = trainable_tensors(policy.model)
    return store.save(Progress("sft", 1, 1), dict(tensors), policy.optimizer_state(), policy.reference)


def test_a_restored_policy_continues_bit_identically(tmp_path):
    policy = updater(linear())
    policy.snapshot_reference()
    step(policy, [1.0, -2.0])
    checkpoint = load_checkpoint(save(policy, tmp_path))
    restored = updater(linear())
    restored.restore(checkpoint)
    assert restored.reference is not None and policy.reference is not None
    assert all(torch.equal(restored.reference[name], tensor) for name, tensor in policy.reference.items())
    for each in (policy, restored):
        step(each, [0.5, 3.0])
    assert torch.equal(weight(policy), weight(restored))
    without = updater(linear())
    without.restore(checkpoint, with_reference=False)
    assert without.reference is None


def test_betas_and_weight_decay_of_a_resumed_stage_are_those_of_its_settings_now(tmp_path):
    before = updater(linear(), weight_decay=0.5, adam_beta1=0.5)
    step(before, [1.0, -2.0])
    resumed = updater(linear(), weight_decay=0.25, adam_beta2=0.9)
    resumed.restore(load_checkpoint(save(before, tmp_path)))
    state = resumed.optimizer_state()
    assert [(group["betas"], group["weight_decay"]) for group in state["param_groups"]] == [((0.9, 0.9), 0.25)]
    assert state["state"][0]["step"] == 1 and torch.equal(weight(resumed), weight(before))


def test_a_new_stage_takes_weights_and_moments_as_configured(tmp_path):
    before = updater(linear(), weight_decay=0.5, adam_beta1=0.5)
    step(before, [1.0, -2.0])
    checkpoint = load_checkpoint(save(before, tmp_path))
    weights_alone, both, neither = updater(linear()), updater(linear()), updater(linear())
    weights_alone.carry_over(checkpoint, CarryConfig())
    both.carry_over(checkpoint, CarryConfig(optimizer=True))
    neither.carry_over(checkpoint, CarryConfig(weights=False))
    assert torch.equal(weight(weights_alone), weight(before))
    torch.testing.assert_close(weight(neither).data, torch.tensor([[2.0, -1.0]]))
    assert weights_alone.optimizer_state()["state"] == {}
    assert both.optimizer_state()["state"][0]["step"] == 1
    (group,) = both.optimizer_state()["param_groups"]
    assert group["betas"] == (0.9, 0.999) and group["weight_decay"] == 0  # the new stage's own


def test_adapters_are_refactored_when_due_and_keep_their_product(tmp_path):
    config = ModelConfig(dtype="float32", device="cpu", lora=LoraConfig(r=4, alpha=8))
    model = load_policy(save_tiny_model(tmp_path), config)
    policy, tokens = updater(model, SPECTRAL, learning_rate=1e-2), torch.arange(8)[None]
    reports = []
    for number in (1, 2, 3, 4):
        policy.begin(1e-2)
        model(input_ids=tokens, labels=tokens).loss.backward()
        reports.append(policy.update(number, 4)[1])
    assert [report is not None for report in reports] == [False, True, False, True]
    assert reports[1] is not None and reports[1].metrics()["spectral_num_pairs"] == 14  # 7 in each of 2 layers
