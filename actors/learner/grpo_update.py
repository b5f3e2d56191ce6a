"""The update of a GRPO step: from graded groups to ``mu`` optimizer steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean

import torch
from torch import Tensor

from actors.learner.session import LearnerSession
from pipeline.config import GRPOConfig
from pipeline.training.batching import MicroBatch, TokenSequence
from pipeline.training.grpo import equal_rewards, group_advantages, grpo_loss
from pipeline.training.logprobs import completion_batches, next_token_logits, token_entropy, token_logprobs
from pipeline.training.rollout_metrics import UNGRADED
from pipeline.types import RolloutGroup


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


def learn_groups(session: LearnerSession, groups: Sequence[RolloutGroup], stage_step: int) -> dict[str, float]:
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
        micro_batches=completion_batches(
            session.model, sequences, session.config.learner.tokens_per_micro_batch, session.dtype
        ),
        advantages=advantages.flatten()[rows].to(session.device),
        num_completions=int(num_completions),
        num_tokens=int(num_tokens),
        sampler_logprobs=[completions[r][1].sampler_logprobs for r in rows],
        learner_tokens=sum(map(len, sequences)),
    )


def _logprobs(session: LearnerSession, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, T] of the targets at the sampling temperature, and the logits [B, T, V]."""
    logits = next_token_logits(session.model, batch, session.dtype)
    return token_logprobs(logits, batch.targets, session.config.rollout.temperature), logits
