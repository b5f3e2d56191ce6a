"""The two training loops. Every Ray Train worker runs one of them, from its first line to its last.

Plain SPMD: each worker takes its share of a step's problems, computes its part of the loss, and gradients are
summed over workers. The maths is in pipeline/training; models, checkpoints, metrics and weights are handled
by LearnerSession.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from actors.learner.session import LearnerSession, StageSetup
from pipeline.config import GRPOConfig, SFTConfig
from pipeline.seeds import completion_seeds
from pipeline.training.batching import (
    MicroBatch,
    TokenSequence,
    micro_batches,
    next_token_logits,
    padding_frac,
    token_entropy,
    token_logprobs,
)
from pipeline.training.grpo import equal_rewards, group_advantages, grpo_loss
from pipeline.training.rollout_metrics import UNGRADED
from pipeline.training.sft import learned_tokens, perplexity, token_losses
from pipeline.types import Problem, RolloutGroup


def sft_loop(setup: StageSetup) -> None:
    """Supervised fine-tuning on worked solutions."""
    session = LearnerSession(setup)
    session.begin()
    for stage_step in session.remaining_steps():
        with session.clock("learner"):
            batch = session.share(session.examples.batch(stage_step))
            metrics = _learn_solutions(session, batch, stage_step)
        session.end_step(metrics | session.evaluate_if_due(), score=-metrics["loss"])
    session.finish()


def grpo_loop(setup: StageSetup) -> None:
    """Group relative policy optimization: prompts, completions, rewards, advantages, loss, update, publish."""
    session = LearnerSession(setup)
    settings: GRPOConfig = session.settings
    session.begin()
    for stage_step in session.remaining_steps():
        if stage_step % settings.num_steps == 0 and settings.beta > 0:
            session.snapshot_reference()
        batch, replayed = zip(*session.examples.batch(stage_step), strict=True)
        seeds = [  # the place counts too: a small data set may repeat a problem within a batch
            completion_seeds(session.seed, session.progress.step, f"{place}:{problem.id}", settings.num_generations)
            for place, (problem, _) in enumerate(batch)
        ]
        groups = session.collect_groups(session.share(list(batch)), session.share(seeds))
        with session.clock("learner"):
            learned = _learn_groups(session, groups, stage_step)
        with session.clock("weight_sync"):
            session.publish_weights(session.progress.step + 1)
        metrics = {"iteration": stage_step // settings.num_steps + 1, **learned}
        metrics |= session.log_groups(groups, list(replayed)) | session.evaluate_if_due()
        session.end_step(metrics, score=metrics["reward_mean"])
    session.finish()


def _learn_solutions(
    session: LearnerSession, batch: list[tuple[tuple[Problem, TokenSequence], bool]], stage_step: int
) -> dict[str, float]:
    """One optimizer step on this worker's share of a batch of worked solutions."""
    settings: SFTConfig = session.settings
    examples = [learned_tokens(tokens, settings.loss_on) for (_, tokens), _ in batch]
    replayed = torch.tensor([is_replayed for _, is_replayed in batch]).long()
    batches = session.example_batches(examples)
    num_tokens = session.sum_over_workers(sum(len(example.completion) for example in examples))
    totals = torch.zeros(2, 4, dtype=torch.float64)  # new, replayed: loss, right tokens, tokens, examples
    totals[:, 3] = replayed.bincount(minlength=2)
    session.begin_update(session.learning_rate(stage_step))
    for micro_batch in batches:
        losses, hits = token_losses(session.model, micro_batch, session.dtype)
        (losses.sum() / num_tokens).backward()
        counted = torch.stack([losses.detach(), hits, micro_batch.completion_mask], dim=-1).flatten(0, 1)
        totals[:, :3].index_add_(0, replayed[micro_batch.owners.flatten().cpu()], counted.cpu().double())
    grad_norm = session.update_policy()
    learner_tokens = sum(len(example) for example in examples)
    new, again = torch.tensor(session.sum_over_workers(totals.flatten().tolist())).view(2, 4).tolist()
    loss, num_hits, _, num_examples = (a + b for a, b in zip(new, again, strict=True))
    return {
        "loss": loss / num_tokens,
        "perplexity": perplexity(loss / num_tokens),
        "token_accuracy": num_hits / num_tokens,
        **_by_origin(new, again),
        "grad_norm": grad_norm,
        "num_examples": num_examples,
        "num_tokens": num_tokens,
        "padding_frac": padding_frac(batches, learner_tokens),
        "learner_tokens": session.sum_over_workers(learner_tokens),
    }


def _by_origin(new: list[float], replayed: list[float]) -> dict[str, float]:
    """Loss and token accuracy apart, once something is replayed."""
    if not replayed[3]:
        return {}
    apart = {"num_replayed": replayed[3]}
    for name, (loss, hits, tokens, _) in (("new", new), ("replayed", replayed)):
        if tokens:
            apart |= {f"loss_{name}": loss / tokens, f"token_accuracy_{name}": hits / tokens}
    return apart


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
        session.begin_update(session.learning_rate(stage_step))
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
