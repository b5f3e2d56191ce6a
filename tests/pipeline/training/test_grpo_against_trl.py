"""Our loss against TRL's own, run inside a real GRPOTrainer on the same tiny model, old and ref logprobs included.

Both sides start from token ids: TRL pads prompts on the left and completions on the right, we pad whole sequences
on the right and split them into micro-batches. Not covered: how completions are sampled, and TRL's logging.

One default differs: TRL 1.16 multiplies the KL term by the ratio (use_bias_correction_kl; DeepSeek-V3.2,
arXiv:2512.02556), which changes its gradient even at ratio 1. Ours is DeepSeekMath's, TRL's with that switch off.
"""

import importlib
import random
from functools import partial

import pytest
import torch

from pipeline.config import GRPOConfig
from pipeline.training.batching import TokenSequence, micro_batches
from pipeline.training.grpo import clipped_policy_loss, group_advantages, grpo_loss
from pipeline.training.logprobs import next_token_logits, token_logprobs
from tests.support.models import tiny_llama, tiny_tokenizer

MAX_COMPLETION_LENGTH = 9
TEMPERATURE = 0.7
SHAPES = [(3, 5), (8, 2), (5, 9), (1, 1), (6, 4), (2, 7)]  # prompt and completion tokens
ADVANTAGES = torch.tensor([1.2, -0.8, 0.5, -1.5, 2.0, -0.3])
OUR_NAME = {"grpo": "sequence", "bnpo": "token", "dapo": "token", "dr_grpo": "constant"}


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


def trl_loss(trainer, sequences, loss_type, beta, epsilon, epsilon_high, old, ref):
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
    }
    trainer.loss_type, trainer.beta = loss_type, beta
    trainer.epsilon_low, trainer.epsilon_high = epsilon, epsilon if epsilon_high is None else epsilon_high
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def our_loss(model, sequences, aggregation, beta, epsilon, epsilon_high, old, ref):
    """Ours, summed over micro-batches of at most 24 padded tokens."""
    settings = GRPOConfig(beta=beta, epsilon=epsilon, epsilon_high=epsilon_high, loss_aggregation=aggregation)
    total = 0.0
    model.zero_grad()
    for batch in micro_batches(sequences, 24, torch.device("cpu")):
        logprobs = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets, TEMPERATURE)
        old_logprobs = logprobs.detach() if old is None else batch.scatter(old)
        loss, _, _ = grpo_loss(
            settings,
            logprobs,
            old_logprobs,
            batch.scatter(ref) if settings.beta > 0 else None,
            advantages=ADVANTAGES[list(batch.rows)],
            completion_mask=batch.completion_mask,
            num_completions=len(sequences),
            num_tokens=sum(len(s.completion) for s in sequences),
            max_completion_length=MAX_COMPLETION_LENGTH,
        )
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("loss_type", OUR_NAME)
@pytest.mark.parametrize(
    ("beta", "mu", "epsilon_high"), [(0.0, 1, None), (0.04, 1, None), (0.0, 2, 0.28), (0.04, 2, None)]
)
def test_loss_and_gradients_are_those_of_trl(trainer, model, sequences, old_and_ref, loss_type, beta, mu, epsilon_high):
    old, ref = old_and_ref
    settings = (beta, 0.2, epsilon_high, old if mu > 1 else None, ref)
    theirs, their_gradients = trl_loss(trainer, sequences, loss_type, *settings)
    ours, our_gradients = our_loss(model, sequences, OUR_NAME[loss_type], *settings)
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert max(g.abs().max().item() for g in their_gradients.values()) > 1e-3  # there is something to compare
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(
            gradient, their_gradients[name], rtol=1e-5, atol=1e-5, msg=partial("{}: {}".format, name)
        )


def test_the_comparison_reaches_both_clips(model, sequences, old_and_ref):
    old, _ = old_and_ref
    (batch,) = micro_batches(sequences, 10_000, torch.device("cpu"))
    logprobs = token_logprobs(next_token_logits(model, batch, torch.float32), batch.targets, TEMPERATURE)
    advantages = ADVANTAGES[list(batch.rows)]
    _, clipped = clipped_policy_loss(logprobs, batch.scatter(old), advantages, epsilon=0.2)
    clipped &= batch.completion_mask
    assert clipped[advantages > 0].sum() >= 3
    assert clipped[advantages < 0].sum() >= 3


@pytest.mark.parametrize("scale_rewards", ["group", "none"])
def test_advantages_are_those_of_trl_but_for_the_kind_of_standard_deviation(trainer, scale_rewards):
    """TRL divides by the sample standard deviation + 1e-4, we divide by the population's + 1e-6:
    population = sample x sqrt((N - 1) / N), so ours are larger, by about sqrt(8 / 7) = 7 % in groups of 8."""
    trainer.scale_rewards, trainer.beta = scale_rewards, 0.0
    trainer.model.train()
    theirs = trainer._generate_and_score_completions([{"prompt": "1+1="}] * 8)["advantages"]
    rewards = torch.tensor([[0.0, 1.0, 1.0, 3.0], [0.5, 0.5, 0.5, 0.5]])
    ours = group_advantages(rewards, normalize_std=scale_rewards == "group")
    if scale_rewards == "group":
        sample = rewards.std(dim=1, keepdim=True)
        population = sample * (3 / 4) ** 0.5  # N = 4
        ours = ours * (population + 1e-6) / (sample + 1e-4)
    torch.testing.assert_close(ours.flatten(), theirs, rtol=0, atol=1e-6)
    assert theirs[3] > 0.5
