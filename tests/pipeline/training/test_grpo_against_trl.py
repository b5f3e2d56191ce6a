"""Our losses against TRL's own, run inside a real GRPOTrainer on the same tiny model, old and ref logprobs included;
RLOO's inside TRL's method on a stub of its trainer.

Both sides start from token ids: TRL pads prompts on the left and completions on the right, we pad whole sequences
on the right and split them into micro-batches. Not covered: how completions are sampled, TRL's logging, and REINFORCE++
and GMPO, which TRL lacks.

One default differs: TRL 1.16 multiplies the KL term by the ratio (use_bias_correction_kl; DeepSeek-V3.2,
arXiv:2512.02556), which changes its gradient even at ratio 1. Ours is DeepSeekMath's, TRL's with that switch off.
"""

import importlib
import random
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.config import GRPOConfig
from pipeline.training.advantages import advantages_of
from pipeline.training.batching import TokenSequence, micro_batches
from pipeline.training.grpo import grpo_loss
from pipeline.training.logprobs import next_token_logits, token_logprobs
from pipeline.training.policy_losses import Sequences, policy_entropy
from tests.support.models import tiny_llama, tiny_tokenizer

MAX_COMPLETION_LENGTH = 9
TEMPERATURE = 0.7
SHAPES = [(3, 5), (8, 2), (5, 9), (1, 1), (6, 4), (2, 7)]  # prompt and completion tokens
ADVANTAGES = torch.tensor([1.2, -0.8, 0.5, -1.5, 2.0, -0.3])
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # our settings; attributes of TRL's trainer. CISPO's bound is the highest ratio itself there.
    ({"algorithm": "grpo"}, {"loss_type": "grpo"}),
    ({"loss_aggregation": "token"}, {"loss_type": "bnpo"}),
    ({"algorithm": "dapo"}, {"loss_type": "dapo"}),
    ({"algorithm": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    ({"algorithm": "gspo"}, {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    (
        {"algorithm": "gspo", "epsilon": 0.1, "epsilon_high": 0.15, "loss_aggregation": "token"},
        {"loss_type": "dapo", "importance_sampling_level": "sequence"},
    ),
    ({"algorithm": "cispo"}, {"loss_type": "cispo"}),
    ({"algorithm": "cispo", "epsilon_high": 0.3}, {"loss_type": "cispo"}),
]


@pytest.fixture(scope="module")
def sequences() -> list[TokenSequence]:
    draw = random.Random(0)
    drawn = ([tuple(draw.choices(range(256), k=n)) for n in shape] for shape in SHAPES)
    return [TokenSequence(prompt, completion) for prompt, completion in drawn]


@pytest.fixture(scope="module")
def model():
    return tiny_llama().train()


@pytest.fixture(scope="module")
def old_and_ref(model, sequences) -> tuple[list[list[float]], list[list[float]]]:
    """Old logprobs so near the policy's that some ratios are clipped and some not; the reference's are further off."""
    noise = random.Random(1)
    values = [[0.0] * len(s.completion) for s in sequences]
    with torch.no_grad():
        for batch in micro_batches(sequences, 10_000, torch.device("cpu")):
            logprobs = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets, TEMPERATURE)
            for index, row in enumerate(batch.rows):
                values[row] = logprobs[index][batch.completion_mask[index]].tolist()
    old = [[x + noise.gauss(0, 0.4) for x in row] for row in values]
    ref = [[x + noise.gauss(0, 0.5) for x in row] for row in values]
    return old, ref


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    pytest.importorskip("trl")
    from datasets import Dataset

    with pytest.MonkeyPatch.context() as patch:  # vLLM is not used here, and takes as long to import as the rest
        patch.setattr(importlib.import_module("trl.import_utils"), "is_vllm_available", lambda *_, **__: False)
        from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        use_cpu=True,
        bf16=False,
        report_to=[],
        beta=0.0,  # no reference model: each test sets beta and gives the reference logprobs itself
        use_bias_correction_kl=False,
        temperature=TEMPERATURE,
        num_generations=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        max_completion_length=MAX_COMPLETION_LENGTH,
    )
    rewards = [0.0, 1.0, 1.0, 3.0, 0.5, 0.5, 0.5, 0.5]
    return GRPOTrainer(
        model=tiny_llama(),
        reward_funcs=lambda completions, **_: rewards,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "1+1="}]),
        processing_class=tiny_tokenizer(),
    )


def trl_loss(trainer, sequences, settings: GRPOConfig, attributes, old, ref, weights=None):
    """TRL's loss and gradients of one batch of all sequences."""
    longest = max(len(s.prompt) for s in sequences)
    left = lambda rows: torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])  # noqa: E731
    right = lambda rows: torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # noqa: E731
    inputs = {
        "prompt_ids": left([s.prompt for s in sequences]),
        "prompt_mask": left([[1] * len(s.prompt) for s in sequences]),
        "completion_ids": right([s.completion for s in sequences]),
        "completion_mask": right([[1] * len(s.completion) for s in sequences]),
        "advantages": ADVANTAGES,
        "old_per_token_logps": None if old is None else right(old),
        "ref_per_token_logps": right(ref),
        "num_items_in_batch": torch.tensor(sum(len(s.completion) for s in sequences)),
        "importance_sampling_ratio": None if weights is None else right(weights),
    }
    low, high = settings.clip_range
    defaults = {
        "beta": settings.beta,
        "epsilon_low": 1 - low,
        "epsilon_high": high if settings.policy_loss == "cispo" else high - 1,
        "importance_sampling_level": "token",
        "current_gradient_accumulation_steps": 1,
        "use_vllm": weights is not None,
        "vllm_importance_sampling_correction": weights is not None,
        "_entropy_bonus_enabled": settings.entropy_coef > 0,
        "use_adaptive_entropy": False,
        "entropy_coef": settings.entropy_coef,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (defaults | attributes).items():
            patch.setattr(trainer, name, value, raising=False)
        trainer.model.train()
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def our_loss(model, sequences, settings: GRPOConfig, old, ref, weights=None):
    """Ours, summed over micro-batches of at most 24 padded tokens; the gradients; the number of clipped tokens."""
    total, num_clipped = 0.0, 0
    model.zero_grad()
    for batch in micro_batches(sequences, 24, torch.device("cpu")):
        logits = next_token_logits(model, batch, torch.float32)
        logprobs = token_logprobs(logits, batch.targets, TEMPERATURE)
        parts = grpo_loss(
            settings,
            logprobs,
            logprobs.detach() if old is None else batch.scatter(old),
            batch.scatter(ref) if settings.beta > 0 else None,
            advantages=ADVANTAGES,
            sequences=Sequences(batch.owners, batch.completion_mask, len(sequences)),
            num_completions=len(sequences),
            num_tokens=sum(len(s.completion) for s in sequences),
            max_completion_length=MAX_COMPLETION_LENGTH,
            weights=None if weights is None else batch.scatter(weights),
            entropy=policy_entropy(logits, TEMPERATURE) if settings.entropy_coef else None,
        )
        parts.loss.backward()
        total += parts.loss.item()
        num_clipped += int(parts.clipped.sum())
    return total, {name: p.grad for name, p in model.named_parameters()}, num_clipped


def check_equal(ours, our_gradients, theirs, their_gradients):
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert max(g.abs().max().item() for g in their_gradients.values()) > 1e-3  # there is something to compare
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(
            gradient, their_gradients[name], rtol=1e-5, atol=1e-5, msg=partial("{}: {}".format, name)
        )


@pytest.mark.parametrize(("ours", "theirs"), CASES)
@pytest.mark.parametrize(("beta", "mu"), [(0.0, 1), (0.04, 1), (0.0, 2), (0.04, 2)])
def test_loss_and_gradients_are_those_of_trl(trainer, model, sequences, old_and_ref, ours, theirs, beta, mu):
    settings = GRPOConfig.model_validate({**ours, "beta": beta})
    old, ref = old_and_ref[0] if mu > 1 else None, old_and_ref[1]
    expected = trl_loss(trainer, sequences, settings, theirs, old, ref)
    loss, gradients, num_clipped = our_loss(model, sequences, settings, old, ref)
    check_equal(loss, gradients, *expected)
    has_high_bound = settings.algorithm == "cispo" and settings.epsilon_high == 4.0  # no ratio reaches 5
    assert (num_clipped > 2) == (mu > 1 and not has_high_bound)


def test_an_entropy_term_and_weights_are_those_of_trl(trainer, model, sequences, old_and_ref):
    """TRL takes the mean entropy over tokens for every kind of loss, so only token aggregation has the same term."""
    draw = random.Random(2)
    weights = [[draw.choice([0.0, 0.5, 2.0]) for _ in s.completion] for s in sequences]
    settings = GRPOConfig(loss_aggregation="token", beta=0.04, entropy_coef=0.3)
    inputs = (*old_and_ref, weights)
    expected = trl_loss(trainer, sequences, settings, {"loss_type": "dapo"}, *inputs)
    check_equal(*our_loss(model, sequences, settings, *inputs)[:2], *expected)


@pytest.mark.parametrize("mu", [1, 2])
def test_the_loss_of_rloo_is_that_of_trl(mu):
    """On log-probabilities that are given, as the ratio is one for a whole completion."""
    trl = pytest.importorskip("trl")
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(9) < torch.tensor([[5], [2], [9], [1], [4], [7]])
    old = -torch.rand(6, 9, generator=generator)
    change = 0.2 * torch.randn(6, 9, generator=generator) if mu > 1 else torch.zeros(6, 9)
    theirs, ours = (old + change).requires_grad_(), (old + change).requires_grad_()
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (theirs, torch.zeros(6, 9), None),
        _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(reduce=lambda x, **_: x, gather=lambda x: x),
        aux_loss_enabled=False,
        epsilon_low=0.2,
        epsilon_high=0.2,
        model=SimpleNamespace(training=True),
    )
    names = ("prompt_ids", "prompt_mask", "completion_ids")
    inputs = {name: torch.zeros(6, 9, dtype=torch.long) for name in names}
    inputs |= {"completion_mask": mask.long(), "old_logps": (old * mask).sum(1), "advantages": ADVANTAGES}
    expected = trl.RLOOTrainer._compute_loss(trainer, None, inputs)
    parts = grpo_loss(
        GRPOConfig(algorithm="rloo"),
        ours,
        old,
        None,
        advantages=ADVANTAGES,
        sequences=Sequences(torch.arange(6)[:, None].expand(6, 9), mask, 6),
        num_completions=6,
        num_tokens=int(mask.sum()),
        max_completion_length=9,
    )
    expected.backward()
    parts.loss.backward()
    torch.testing.assert_close(parts.loss, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5)
    assert parts.clipped.any() == (mu > 1)


@pytest.mark.parametrize("scale_rewards", ["group", "none"])
def test_advantages_are_those_of_trl_but_for_the_kind_of_standard_deviation(trainer, scale_rewards):
    """TRL divides by the sample standard deviation + 1e-4, we divide by the population's + 1e-6:
    population = sample x sqrt((N - 1) / N), so ours are larger, by about sqrt(8 / 7) = 7 % in groups of 8."""
    trainer.scale_rewards, trainer.beta = scale_rewards, 0.0
    trainer.model.train()
    theirs = trainer._generate_and_score_completions([{"prompt": "1+1="}] * 8)["advantages"]
    rewards = torch.tensor([[0.0, 1.0, 1.0, 3.0], [0.5, 0.5, 0.5, 0.5]])
    settings, mask = GRPOConfig(normalize_std=scale_rewards == "group"), torch.ones(2, 4, dtype=torch.bool)
    ours = advantages_of(settings, rewards, mask, list)
    if scale_rewards == "group":
        sample = rewards.std(dim=1, keepdim=True)
        population = sample * (3 / 4) ** 0.5  # N = 4
        ours = ours * (population + 1e-6) / (sample + 1e-4)
    torch.testing.assert_close(ours.flatten(), theirs, rtol=0, atol=1e-6)
    assert theirs[3] > 0.5
