"""GRPO: the loop that every Ray Train worker runs from its first line to its last.

Plain SPMD: each worker takes its share of a step's problems, computes its part of the loss, and gradients are
summed over workers. The maths is in pipeline/training/grpo.py; LearnerSession handles models, checkpoints, metrics
and weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean

import torch
from torch import Tensor

from actors.learner.session import LearnerSession
from actors.learner.setup import StageSetup
from pipeline.config import GRPOConfig
from pipeline.rewards.totals import quality
from pipeline.seeds import completion_seeds
from pipeline.training.batching import MicroBatch, TokenSequence, micro_batches
from pipeline.training.grpo import equal_rewards, group_advantages, grpo_loss
from pipeline.training.logprobs import next_token_logits, token_entropy, token_logprobs
from pipeline.training.rollout_metrics import UNGRADED, rollout_metrics
from pipeline.types import RolloutGroup


def grpo_loop(setup: StageSetup) -> None:
    """Group relative policy optimization: prompts, completions, rewards, advantages, loss, update, publish."""
    session = LearnerSession(setup)
    settings: GRPOConfig = session.settings
    session.begin()
    for stage_step in session.remaining_steps():
        iteration, iteration_step = divmod(session.schedule.pass_step, settings.num_steps)
        if iteration_step == 0 and settings.beta > 0:
            session.policy.snapshot_reference()
        batch, step = session.examples.batch(stage_step), session.progress.step
        seeds = [  # the position counts too: a small data set may repeat a problem within a batch
            completion_seeds(session.config.seed, step, f"{place}:{example.problem.id}", settings.num_generations)
            for place, example in enumerate(batch)
        ]
        share = session.ranks.share
        groups = session.engines.collect(share(batch), share(seeds), session.clock, session.rewards.state)
        with session.clock("learner"):
            learned = _learn_groups(session, groups, stage_step)
        with session.clock("weight_sync"):
            rounding = session.publish_weights(step + 1)
        metrics = {"iteration": iteration + 1, **learned, **rounding}
        metrics |= _record_groups(session, groups, [example.is_replayed for example in batch])
        metrics |= session.evaluate_if_due()
        # Z-scores are relative to the policy's own past: their mean stays where it is while the policy improves.
        session.end_step(metrics, score=metrics.get("reward_quality", metrics["reward_mean"]))
    session.finish()


@dataclass(frozen=True)
class _RolloutBatch:
    """One worker's completions to learn from, split into micro-batches."""

    micro_batches: list[MicroBatch]
    advantages: Tensor
    """[num_sequences]"""
    num_completions: int
    """Completions of the global batch: the loss is averaged over them."""
    num_tokens: int
    """Their tokens."""
    sampler_logprobs: list[tuple[float, ...]]
    """[num_sequences][num_tokens]"""
    learner_tokens: int
    """Prompt and completion tokens of this worker."""


@dataclass
class _Totals:
    """Sums over micro-batches and, in the end, over workers."""

    loss: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    entropy: float = 0.0
    sampler_diff: float = 0.0
    tokens: float = 0.0
    learner_tokens: float = 0.0


def _learn_groups(session: LearnerSession, groups: Sequence[RolloutGroup], stage_step: int) -> dict[str, float]:
    """``mu`` optimizer steps on this worker's share of a batch of rollouts."""
    settings: GRPOConfig = session.settings
    rollouts = _prepare(session, groups)
    ref_logprobs = _reference_logprobs(session, rollouts.micro_batches)
    old_logprobs: list[Tensor] = []
    totals, norms = _Totals(learner_tokens=rollouts.learner_tokens * settings.mu), []
    for _ in range(settings.mu):
        session.begin_update(stage_step)
        earlier_loss = totals.loss
        for index, batch in enumerate(rollouts.micro_batches):
            logprobs, logits = _logprobs(session, batch)
            if index == len(old_logprobs):  # the first of the mu passes runs on the weights that sampled
                old_logprobs.append(logprobs.detach())
                sampler_diff = (old_logprobs[index] - batch.scatter(rollouts.sampler_logprobs)).abs()
                totals.sampler_diff += (sampler_diff * batch.completion_mask).sum().item() * settings.mu
            loss, kl, clipped = grpo_loss(
                settings,
                logprobs,
                old_logprobs[index],
                ref_logprobs[index],
                advantages=rollouts.advantages[list(batch.rows)],
                completion_mask=batch.completion_mask,
                num_completions=rollouts.num_completions,
                num_tokens=rollouts.num_tokens,
                max_completion_length=session.config.rollout.max_completion_length,
            )
            loss.backward()
            entropy = token_entropy(logits.detach(), session.config.rollout.temperature)
            totals.loss += loss.item()
            totals.kl += kl.sum().item()
            totals.clipped += clipped.sum().item()
            totals.entropy += (entropy * batch.completion_mask).sum().item()
            totals.tokens += batch.completion_mask.sum().item()
            del logits, logprobs, loss  # before the next forward pass needs the memory
        norms.append(session.update_policy(totals.loss - earlier_loss))
    finite = [norm for norm in norms if math.isfinite(norm)]
    return _metrics(session, totals) | ({"grad_norm": fmean(finite)} if finite else {})


def _reference_logprobs(session: LearnerSession, batches: Sequence[MicroBatch]) -> list[Tensor | None]:
    """Log-probabilities [B, T] of the reference policy for every micro-batch; None without a KL term."""
    if session.settings.beta == 0:
        return [None] * len(batches)
    with torch.no_grad(), session.policy.reference_policy():
        return [_logprobs(session, batch)[0] for batch in batches]


def _metrics(session: LearnerSession, totals: _Totals) -> dict[str, float]:
    """Means over the loss tokens of all workers. Without any, or without a KL term, there is nothing to report."""
    names = [field.name for field in fields(totals)]
    sums = dict(zip(names, session.ranks.sum([getattr(totals, name) for name in names]), strict=True))
    metrics, tokens = {"learner_tokens": sums["learner_tokens"]}, sums["tokens"]
    if tokens:
        metrics |= {
            "loss": sums["loss"] / session.settings.mu,
            "clip_frac": sums["clipped"] / tokens,
            "entropy": sums["entropy"] / tokens,
            "sampler_logprob_diff": sums["sampler_diff"] / tokens,
        }
    return metrics | ({"kl": sums["kl"] / tokens} if tokens and session.settings.beta else {})


def _prepare(session: LearnerSession, groups: Sequence[RolloutGroup]) -> _RolloutBatch:
    """Rewards to advantages, and the choice of what to learn from.

    Without a KL term a completion whose advantage is 0 has no gradient: it counts in the
    denominators but skips the forward and backward pass.
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
    own_tokens = sum(len(c.token_ids) for (_, c), taken in zip(completions, counted_rows, strict=True) if taken)
    num_completions, num_tokens = session.ranks.sum([sum(counted_rows), own_tokens])
    kept = counted & (advantages != 0) if settings.beta == 0 else counted
    rows = kept.flatten().nonzero().flatten().tolist()
    sequences = [TokenSequence(completions[r][0].prompt_token_ids, completions[r][1].token_ids) for r in rows]
    return _RolloutBatch(
        micro_batches=micro_batches(sequences, session.config.learner.tokens_per_micro_batch, session.device),
        advantages=advantages.flatten()[rows].to(session.device),
        num_completions=int(num_completions),
        num_tokens=int(num_tokens),
        sampler_logprobs=[completions[r][1].sampler_logprobs for r in rows],
        learner_tokens=sum(map(len, sequences)),
    )


def _record_groups(session: LearnerSession, groups: list[RolloutGroup], replayed: Sequence[bool]) -> dict[str, float]:
    """Metrics over the groups of all workers; some completions are written to samples/.

    Args:
        groups: this worker's.
        replayed: for every prompt of the global batch, whether it came from the replay buffer.
    """
    groups = session.ranks.gather(groups)
    if session.recorder:
        session.recorder.groups(groups, session.progress.step + 1)
    session.rewards.advance(groups)
    version = groups[0].weight_id.step
    return (
        rollout_metrics(groups, replayed)
        | _quality(session, groups)
        | {
            "num_rollout_tokens": sum(len(c.token_ids) for group in groups for c in group.completions),
            "policy_version": version,
            "staleness": session.progress.step - version,
        }
    )


def _quality(session: LearnerSession, groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """The mean quality of the completions where totals are normalised."""
    reward = session.config.reward
    qualities = [quality(each.parts, reward.functions) for group in groups for each in group.rewards]
    return {"reward_quality": fmean(qualities)} if reward.normalize else {}


def _logprobs(session: LearnerSession, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, T] of the targets at the sampling temperature, and the logits [B, T, V]."""
    logits = next_token_logits(session.model, batch, session.dtype)
    return token_logprobs(logits, batch.targets, session.config.rollout.temperature), logits
