"""The loss of GRPO and its relatives, put together from its parts: ratio and clip, KL and entropy terms, aggregation.

Shapes: [B, T] tokens of a micro-batch; a row may hold several sequences, as ``Sequences`` says. Formulas, sources and
settings: docs/losses.md.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config import GRPOConfig
from pipeline.training.policy_losses import (
    Sequences,
    TokenLosses,
    cispo_loss,
    clipped_loss,
    geometric_mean_loss,
    k3_kl,
    log_ratios,
    product_ratios,
    sequence_ratios,
)


class LossParts(NamedTuple):
    """A micro-batch's part of the loss. The parts of all micro-batches and workers add up to the loss."""

    loss: Tensor
    """A scalar."""
    kl: Tensor
    """[B, T]: the estimate of the KL term, 0 outside the mask; without a gradient."""
    clipped: Tensor
    """[B, T] bool: tokens whose ratio the clip holds; False outside the mask."""


def grpo_loss(
    settings: GRPOConfig,
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    *,
    advantages: Tensor,
    sequences: Sequences,
    num_completions: int,
    num_tokens: int,
    max_completion_length: int,
    weights: Tensor | None = None,
    entropy: Tensor | None = None,
) -> LossParts:
    """This micro-batch's part of the loss.

    Args:
        logprobs, old_logprobs: [B, T]. Gradients flow through ``logprobs`` only. Values outside the sequences are
            ignored.
        ref_logprobs: [B, T], or None if ``beta`` is 0.
        advantages: one for each sequence, by its number.
        num_completions, num_tokens: of the global batch.
        max_completion_length: the constant that Dr. GRPO divides by.
        weights: [B, T], one for each token's policy loss: see ``sampler_weights``.
        entropy: [B, T] with a gradient, or None if ``entropy_coef`` is 0.
    """
    mask = sequences.mask
    per_token, clipped = _policy_loss(settings, logprobs, old_logprobs, advantages[sequences.owners], sequences)
    if weights is not None:
        per_token = per_token * weights
    kl = torch.zeros_like(per_token)
    if ref_logprobs is not None:
        kl = k3_kl(log_ratios(ref_logprobs, logprobs, mask))
        per_token = per_token + settings.beta * kl
    if entropy is not None:
        per_token = per_token - settings.entropy_coef * entropy.where(mask, 0.0)
    shares = token_weights(
        sequences,
        aggregation=settings.loss_aggregation,
        num_completions=num_completions,
        num_tokens=num_tokens,
        max_completion_length=max_completion_length,
    )
    return LossParts((per_token * shares).sum(), kl.detach(), clipped & mask)


def _policy_loss(
    settings: GRPOConfig, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, sequences: Sequences
) -> TokenLosses:
    """The loss of ``policy_loss`` per token, given the advantages [B, T] of tokens."""
    log_ratio = log_ratios(logprobs, old_logprobs, sequences.mask)
    match settings.policy_loss:
        case "clip":
            return clipped_loss(torch.exp(log_ratio), advantages, settings.clip_range)
        case "sequence_clip":
            return clipped_loss(sequence_ratios(log_ratio, sequences), advantages, settings.clip_range)
        case "product_clip":
            return clipped_loss(product_ratios(log_ratio, sequences), advantages, settings.clip_range)
        case "cispo":
            kept = logprobs.float().where(sequences.mask, 0.0)
            return cispo_loss(kept, torch.exp(log_ratio), advantages, settings.clip_range)
        case "geometric_mean":
            return geometric_mean_loss(log_ratio, advantages, sequences, settings.clip_range)


def token_weights(
    sequences: Sequences,
    *,
    aggregation: str,
    num_completions: int,
    num_tokens: int,
    max_completion_length: int,
) -> Tensor:
    """Weight of each token's loss: the weighted sum over all micro-batches and workers is the loss.

    Args:
        aggregation: see GRPOConfig.loss_aggregation.
        num_completions: completions of the global batch.
        num_tokens: completion tokens of the global batch.
        max_completion_length: the constant that Dr. GRPO divides by.

    Returns:
        [B, T] float32, 0 outside the sequences.
    """
    mask = sequences.mask.float()
    if aggregation == "token":
        return mask / max(num_tokens, 1)
    if aggregation == "constant":
        return mask / (max(num_completions, 1) * max_completion_length)
    return mask / (sequences.lengths * max(num_completions, 1))
