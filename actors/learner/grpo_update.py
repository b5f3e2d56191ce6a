"""The update of a GRPO step: from graded groups to ``mu`` optimizer steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from actors.learner.session import LearnerSession
from pipeline.config import GRPOConfig
from pipeline.models.compute_copies import computing_in
from pipeline.training.advantages import advantages_of, equal_rewards, overlong_penalties
from pipeline.training.batching import MicroBatch, TokenSequence
from pipeline.training.grpo import grpo_loss
from pipeline.training.logprobs import completion_batches, logprobs_and_entropy, next_token_logits, token_logprobs
from pipeline.training.policy_losses import Sequences, log_ratios, policy_entropy
from pipeline.training.rollout_metrics import UNGRADED
from pipeline.training.sampler_weights import effective_sample_frac, sampler_weights
from pipeline.types import RolloutGroup

GroupUse = Literal["trained", "no_variance", "ungraded", "truncated"]
"""Use that a step made of a group: it trained on some of its completions, or the reason why it did on none."""


class Learned(NamedTuple):
    """The result of a step's update."""

    metrics: dict[str, float]
    uses: list[GroupUse]
    """One for each of this worker's groups, in order."""


@dataclass(frozen=True)
class _Signal:
    """Training signal of a worker's groups. Shapes: G groups of N completions."""

    advantages: Tensor
    """[G, N]"""
    counted: Tensor
    """[G, N] bool: completions that the loss is averaged over."""
    learned: Tensor
    """[G, N] bool: those of them that have a gradient."""
    uses: list[GroupUse]
    overlong_penalty: float
    """Sum over the completions."""


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
    sampler_logprobs: list[Sequence[float]]
    """[num_sequences][num_tokens]"""
    learner_tokens: int
    """Prompt and completion tokens of this worker."""


@dataclass(frozen=True)
class _Start:
    """State of a micro-batch from its first pass, on the weights that the step began with."""

    old_logprobs: Tensor
    """[B, T]"""
    weights: Tensor
    """[B, T]: sampler corrections."""
    largest_diff: float
    """Largest absolute difference between the sampler's and the learner's log-probabilities."""


@dataclass
class _Totals:
    """Sums over micro-batches and, in the end, over workers."""

    loss: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    entropy: float = 0.0
    tokens: float = 0.0
    learner_tokens: float = 0.0
    completions: float = 0.0
    overlong_penalty: float = 0.0
    first_tokens: float = 0.0
    """Tokens of the first of the ``mu`` passes, which the sums below are over."""
    sampler_diff: float = 0.0
    weights: float = 0.0
    weight_squares: float = 0.0
    corrected: float = 0.0

    def add(self, **values: Tensor) -> None:
        """Scalars to add, by name. One transfer from the device for all of them."""
        for name, value in zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True):
            setattr(self, name, getattr(self, name) + value)


def learn_groups(session: LearnerSession, groups: Sequence[RolloutGroup], stage_step: int) -> Learned:
    """``mu`` optimizer steps on this worker's share of a batch of rollouts."""
    settings: GRPOConfig = session.settings
    signal = _signal(session, groups)
    rollouts = _prepare(session, groups, signal)
    ref_logprobs = _reference_logprobs(session, rollouts.micro_batches)
    starts: list[_Start] = []
    norms: list[float] = []
    totals = _Totals(
        learner_tokens=rollouts.learner_tokens * settings.mu,
        completions=signal.counted.numel(),
        overlong_penalty=signal.overlong_penalty,
    )
    for _ in range(settings.mu):
        session.begin_update(stage_step)
        earlier_loss = totals.loss
        with computing_in(session.model, session.dtype):
            _add_gradients(session, rollouts, ref_logprobs, starts, totals)
        norms.append(session.update_policy(totals.loss - earlier_loss))
    finite = [norm for norm in norms if math.isfinite(norm)]
    largest_diff = max((start.largest_diff for start in starts), default=0.0)
    metrics = _metrics(session, totals, largest_diff) | ({"grad_norm": fmean(finite)} if finite else {})
    return Learned(metrics, signal.uses)


def _add_gradients(
    session: LearnerSession,
    rollouts: _RolloutBatch,
    ref_logprobs: Sequence[Tensor | None],
    starts: list[_Start],
    totals: _Totals,
) -> None:
    """Forward and backward passes of one of the ``mu`` updates. The first adds to ``starts``."""
    settings: GRPOConfig = session.settings
    for index, batch in enumerate(rollouts.micro_batches):
        logprobs, entropy = _policy(session, batch)
        sequences = Sequences(batch.owners, batch.completion_mask, len(rollouts.advantages))
        if index == len(starts):  # the first of the mu passes runs on the weights that the step began with
            sampler_logprobs = batch.scatter(rollouts.sampler_logprobs)
            starts.append(_start(session, logprobs.detach(), sampler_logprobs, sequences, totals))
        parts = grpo_loss(
            settings,
            logprobs,
            starts[index].old_logprobs,
            ref_logprobs[index],
            advantages=rollouts.advantages,
            sequences=sequences,
            num_completions=rollouts.num_completions,
            num_tokens=rollouts.num_tokens,
            max_completion_length=session.config.rollout.max_completion_length,
            weights=starts[index].weights,
            entropy=entropy if settings.entropy_coef else None,
        )
        parts.loss.backward()
        totals.add(
            loss=parts.loss.detach(),
            kl=parts.kl.sum(),
            clipped=parts.clipped.sum(),
            entropy=(entropy.detach() * batch.completion_mask).sum(),
            tokens=batch.completion_mask.sum(),
        )
        del logprobs, entropy, parts  # before the next forward pass needs the memory


def _reference_logprobs(session: LearnerSession, batches: Sequence[MicroBatch]) -> list[Tensor | None]:
    """Log-probabilities [B, T] of the reference policy for every micro-batch; None without a KL term."""
    if session.settings.beta == 0:
        return [None] * len(batches)
    with torch.no_grad(), session.policy.reference_policy(), computing_in(session.model, session.dtype):
        return [_logprobs(session, batch) for batch in batches]


def _start(
    session: LearnerSession, logprobs: Tensor, sampler_logprobs: Tensor, sequences: Sequences, totals: _Totals
) -> _Start:
    """Compares learner and sampler, whose log-probabilities are [B, T]; adds what it finds to the totals."""
    log_ratio = log_ratios(logprobs, sampler_logprobs, sequences.mask)
    weights, corrected = sampler_weights(session.settings, log_ratio, sequences)
    diff = (logprobs - sampler_logprobs).abs().where(sequences.mask, 0.0)
    totals.add(
        first_tokens=sequences.mask.sum(),
        sampler_diff=diff.sum(),
        weights=weights.sum(),
        weight_squares=weights.square().sum(),
        corrected=corrected.sum(),
    )
    is_sampler = session.settings.old_policy_for(session.config.rollout.max_staleness) == "sampler"
    return _Start(sampler_logprobs if is_sampler else logprobs, weights, diff.max().item())


def _metrics(session: LearnerSession, totals: _Totals, largest_diff: float) -> dict[str, float]:
    """Means over the loss tokens of all workers. What there is none of, or what no setting asks for, is absent.

    Args:
        totals, largest_diff: of this worker.
    """
    settings: GRPOConfig = session.settings
    names = [field.name for field in fields(totals)]
    sums = _Totals(*session.ranks.sum([getattr(totals, name) for name in names]))
    largest_diff = max(session.ranks.gather([largest_diff]))
    metrics = {"learner_tokens": sums.learner_tokens}
    if settings.overlong_buffer_frac:
        metrics["overlong_penalty"] = sums.overlong_penalty / sums.completions
    if not sums.tokens:
        return metrics
    metrics |= {
        "loss": sums.loss / settings.mu,
        "clip_frac": sums.clipped / sums.tokens,
        "entropy": sums.entropy / sums.tokens,
        "sampler_logprob_diff": sums.sampler_diff / sums.first_tokens,
        "sampler_logprob_diff_max": largest_diff,
    }
    if settings.sampler_correction != "none":
        metrics["sampler_corrected_frac"] = sums.corrected / sums.first_tokens
        metrics["sampler_ess_frac"] = effective_sample_frac(sums.weights, sums.weight_squares, sums.first_tokens)
    return metrics | ({"kl": sums.kl / sums.tokens} if settings.beta else {})


def _signal(session: LearnerSession, groups: Sequence[RolloutGroup]) -> _Signal:
    """Rewards to advantages, and the choice of what to learn from.

    Without terms for KL and entropy a completion whose advantage is 0 has no gradient: it counts in the denominators
    but skips the forward and backward pass.
    """
    settings, max_length = session.settings, session.config.rollout.max_completion_length
    graded_rewards = torch.tensor([[reward.total for reward in group.rewards] for group in groups])
    graded = torch.tensor([[r.outcome not in UNGRADED for r in group.rewards] for group in groups])
    mask = graded if settings.mask_ungraded else torch.ones_like(graded)
    lengths = torch.tensor([[len(c.token_ids) for c in group.completions] for group in groups])
    buffer = round(settings.overlong_buffer_frac * max_length)
    penalties = overlong_penalties(lengths, max_length, buffer, settings.overlong_penalty)
    rewards, equal = graded_rewards - penalties, equal_rewards(graded_rewards, mask)
    advantages = advantages_of(settings, rewards, mask, session.ranks.sum)
    counted = mask.clone()
    if settings.drop_zero_variance_groups:
        counted &= ~equal[:, None]
    if settings.mask_truncated:
        counted &= torch.tensor([[c.stop_reason != "length" for c in group.completions] for group in groups])
    always_learns = settings.beta or settings.entropy_coef
    learned = counted if always_learns else counted & (advantages != 0)
    is_flat = equal | equal_rewards(rewards, mask)  # also where only the penalties made them equal
    uses = [_use(*flags) for flags in zip(learned.any(1), mask.sum(1) < 2, is_flat, strict=True)]
    return _Signal(advantages, counted, learned, uses, penalties.sum().item())


def _use(is_learned: Tensor, is_ungraded: Tensor, is_equal: Tensor) -> GroupUse:
    if is_learned:
        return "trained"
    if is_ungraded:
        return "ungraded"
    return "no_variance" if is_equal else "truncated"


def _prepare(session: LearnerSession, groups: Sequence[RolloutGroup], signal: _Signal) -> _RolloutBatch:
    """Completions that are learned from, in micro-batches, and the sizes of the global batch."""
    completions = [(group, completion) for group in groups for completion in group.completions]
    counted_rows = signal.counted.flatten().tolist()
    own_tokens = sum(len(c.token_ids) for (_, c), taken in zip(completions, counted_rows, strict=True) if taken)
    num_completions, num_tokens = session.ranks.sum([sum(counted_rows), own_tokens])
    rows = signal.learned.flatten().nonzero().flatten().tolist()
    sequences = [TokenSequence(completions[r][0].prompt_token_ids, completions[r][1].token_ids) for r in rows]
    max_tokens = session.config.learner.tokens_per_micro_batch
    return _RolloutBatch(
        micro_batches=completion_batches(session.model, sequences, max_tokens, session.dtype),
        advantages=signal.advantages.flatten()[rows].to(session.device),
        num_completions=int(num_completions),
        num_tokens=int(num_tokens),
        sampler_logprobs=[completions[r][1].sampler_logprobs for r in rows],
        learner_tokens=sum(map(len, sequences)),
    )


def _policy(session: LearnerSession, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [B, T] at the sampling temperature. Entropies have a gradient if the loss has a
    term for them."""
    logits = next_token_logits(session.model, batch, session.dtype)
    temperature = session.config.rollout.temperature
    if session.settings.entropy_coef:
        return token_logprobs(logits, batch.targets, temperature), policy_entropy(logits, temperature)
    return logprobs_and_entropy(logits, batch.targets, temperature)


def _logprobs(session: LearnerSession, batch: MicroBatch) -> Tensor:
    """Log-probabilities [B, T] of the targets at the sampling temperature."""
    logits = next_token_logits(session.model, batch, session.dtype)
    return token_logprobs(logits, batch.targets, session.config.rollout.temperature)
