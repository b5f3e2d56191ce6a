"""The two training loops. Every Ray Train worker runs one of them, from its first line to its last.

Plain SPMD: each worker takes its share of a step's problems, computes its part of the loss, and gradients are
summed over workers. The maths is in pipeline/grpo.py and pipeline/batching.py; models, checkpoints, metrics
and weights are handled by LearnerSession.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from actors.session import LearnerSession, StageSetup
from pipeline.batching import MicroBatch, TokenSequence, micro_batches, next_token_logits, token_entropy, token_logprobs
from pipeline.config import GRPOConfig, SFTConfig
from pipeline.grpo import equal_rewards, group_advantages, grpo_loss
from pipeline.metrics import UNGRADED
from pipeline.schedules import batch_at, completion_seeds, learning_rate
from pipeline.types import RolloutGroup


def sft_loop(setup: StageSetup) -> None:
    """Supervised fine-tuning on worked solutions: loss on completion tokens only."""
    session = LearnerSession(setup)
    settings: SFTConfig = session.settings
    examples = session.encode_solutions(settings.max_length)
    session.begin()
    for stage_step in session.remaining_steps():
        with session.clock("learner"):
            batch = batch_at(examples, settings.batch_size, stage_step, session.seed, session.stage.name)
            metrics = _learn_solutions(session, session.share(batch), stage_step)
        session.end_step(metrics, score=-metrics["loss"])
    session.publish_weights(session.progress.step)
    session.finish()


def grpo_loop(setup: StageSetup) -> None:
    """Group relative policy optimization: prompts, completions, rewards, advantages, loss, update, publish."""
    session = LearnerSession(setup)
    settings: GRPOConfig = session.settings
    problems = session.encode_prompts()
    session.begin()
    for stage_step in session.remaining_steps():
        if stage_step % settings.num_steps == 0 and settings.beta > 0:
            session.snapshot_reference()
        batch = batch_at(problems, settings.batch_size, stage_step, session.seed, session.stage.name)
        seeds = [  # the place counts too: a small data set may repeat a problem within a batch
            completion_seeds(session.seed, session.progress.step, f"{place}:{problem.id}", settings.num_generations)
            for place, (problem, _) in enumerate(batch)
        ]
        groups = session.collect_groups(session.share(batch), session.share(seeds))
        with session.clock("learner"):
            learned = _learn_groups(session, groups, stage_step)
        with session.clock("weight_sync"):
            session.publish_weights(session.progress.step + 1)
        metrics = {"iteration": stage_step // settings.num_steps + 1, **learned}
        metrics |= session.log_groups(groups)
        session.end_step(metrics, score=metrics["reward_mean"])
    session.finish()


def _learn_solutions(session: LearnerSession, examples: list[TokenSequence], stage_step: int) -> dict[str, float]:
    """One optimizer step on this worker's share of a batch of worked solutions."""
    batches = micro_batches(examples, session.tokens_per_micro_batch, session.device)
    num_tokens = session.sum_over_workers(sum(len(example.completion) for example in examples))
    totals = torch.zeros(2, dtype=torch.float64)
    session.begin_update(learning_rate(session.settings, stage_step, session.total_steps))
    for batch in batches:
        logits = next_token_logits(session.model, batch, session.dtype)
        logprobs = token_logprobs(logits, batch.targets)
        loss = -(logprobs * batch.completion_mask).sum() / num_tokens
        loss.backward()
        hits = (logits.detach().argmax(dim=-1) == batch.targets) & batch.completion_mask
        totals += torch.tensor([loss.item(), hits.sum().item()], dtype=torch.float64)
    grad_norm = session.update_policy()
    loss_sum, num_hits = session.sum_over_workers(totals.tolist())
    return {
        "loss": loss_sum,
        "token_accuracy": num_hits / num_tokens,
        "grad_norm": grad_norm,
        "num_examples": session.settings.batch_size,
        "num_tokens": num_tokens,
        "learner_tokens": session.sum_over_workers(sum(len(example) for example in examples)),
    }


@dataclass
class _RolloutBatch:
    """One worker's completions that teach something."""

    sequences: list[TokenSequence]
    advantages: Tensor
    """[num_sequences]"""
    num_completions: int
    """Of the global batch: what the loss is averaged over."""
    num_tokens: int
    sampler_logprobs: list[tuple[float, ...]]


def _learn_groups(session: LearnerSession, groups: list[RolloutGroup], stage_step: int) -> dict[str, float]:
    """``mu`` optimizer steps on this worker's share of a batch of rollouts."""
    settings: GRPOConfig = session.settings
    rollouts = _prepare(session, groups)
    batches = micro_batches(rollouts.sequences, session.tokens_per_micro_batch, session.device)
    ref_logprobs: list[Tensor | None] = [None] * len(batches)
    if settings.beta > 0:
        with torch.no_grad(), session.reference_policy():
            ref_logprobs = [_logprobs(session, batch)[0] for batch in batches]
    old_logprobs: list[Tensor] = []
    totals: dict[str, float] = dict.fromkeys(("loss", "kl", "clipped", "entropy", "sampler_diff", "tokens"), 0.0)
    grad_norm = 0.0
    for _ in range(settings.mu):
        session.begin_update(learning_rate(settings, stage_step, session.total_steps))
        for index, batch in enumerate(batches):
            mask = batch.completion_mask
            logprobs, logits = _logprobs(session, batch)
            if index == len(old_logprobs):  # the first of the mu passes runs on the weights that sampled
                old_logprobs.append(logprobs.detach())
                sampler_diff = (old_logprobs[index] - batch.scatter(rollouts.sampler_logprobs)).abs()
                totals["sampler_diff"] += (sampler_diff * mask).sum().item() * settings.mu
            loss, kl, clipped = grpo_loss(
                settings,
                logprobs,
                old_logprobs[index],
                ref_logprobs[index],
                advantages=rollouts.advantages[list(batch.rows)],
                completion_mask=mask,
                num_completions=rollouts.num_completions,
                num_tokens=rollouts.num_tokens,
                max_completion_length=session.config.rollout.max_completion_length,
            )
            loss.backward()
            totals["loss"] += loss.item()
            totals["kl"] += kl.sum().item()
            totals["clipped"] += clipped.sum().item()
            totals["entropy"] += (token_entropy(logits.detach(), session.temperature) * mask).sum().item()
            totals["tokens"] += mask.sum().item()
            del logits, logprobs, loss  # before the next forward pass needs the memory
        grad_norm += session.update_policy() / settings.mu
    totals["learner_tokens"] = sum(len(sequence) for sequence in rollouts.sequences) * settings.mu
    sums = dict(zip(totals, session.sum_over_workers(list(totals.values())), strict=True))
    tokens = max(sums["tokens"], 1)
    return {
        "loss": sums["loss"] / settings.mu,
        "kl": sums["kl"] / tokens,
        "clip_frac": sums["clipped"] / tokens,
        "entropy": sums["entropy"] / tokens,
        "sampler_logprob_diff": sums["sampler_diff"] / tokens,
        "grad_norm": grad_norm,
        "learner_tokens": sums["learner_tokens"],
    }


def _prepare(session: LearnerSession, groups: list[RolloutGroup]) -> _RolloutBatch:
    """Rewards to advantages, and the choice of what to learn from.

    Without a KL term a completion whose advantage is 0 has no gradient: it is counted in the denominators, and
    its forward and backward pass is saved.
    """
    settings: GRPOConfig = session.settings
    rewards = torch.tensor([[reward.total for reward in group.rewards] for group in groups])
    graded = torch.tensor([[r.outcome not in UNGRADED for r in group.rewards] for group in groups])
    mask = graded if settings.mask_ungraded else torch.ones_like(graded)
    advantages = group_advantages(rewards, mask=mask, normalize_std=settings.normalize_std)
    counted = mask.clone()
    if settings.drop_zero_variance_groups:
        counted &= ~equal_rewards(rewards, mask)[:, None]
    if settings.mask_truncated:
        counted &= torch.tensor([[c.stop_reason != "length" for c in group.completions] for group in groups])
    completions = [(group, completion) for group in groups for completion in group.completions]
    counted_rows = counted.flatten().tolist()
    num_tokens = sum(len(c.token_ids) for (_, c), taken in zip(completions, counted_rows, strict=True) if taken)
    num_completions, num_tokens = session.sum_over_workers([sum(counted_rows), num_tokens])
    kept = counted & (advantages != 0) if settings.beta == 0 else counted
    rows = kept.flatten().nonzero().flatten().tolist()
    return _RolloutBatch(
        sequences=[TokenSequence(completions[r][0].prompt_token_ids, completions[r][1].token_ids) for r in rows],
        advantages=advantages.flatten()[rows].to(session.device),
        num_completions=int(num_completions),
        num_tokens=int(num_tokens),
        sampler_logprobs=[completions[r][1].sampler_logprobs for r in rows],
    )


def _logprobs(session: LearnerSession, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, T] of the targets at the sampling temperature, and the logits [B, T, V]."""
    logits = next_token_logits(session.model, batch, session.dtype)
    return token_logprobs(logits, batch.targets, session.temperature), logits
