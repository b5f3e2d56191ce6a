"""Group relative policy optimization: the maths, as pure functions on tensors.

Shapes: G groups of N completions; B = completions in a (micro-)batch; T = token positions, padded.

Source: DeepSeekMath, arXiv:2402.03300. Variants: Dr. GRPO, arXiv:2503.20783; DAPO, arXiv:2503.14476.
"""

import torch
from torch import Tensor

from pipeline.config import GRPOConfig


def group_advantages(
    rewards: Tensor, *, mask: Tensor | None = None, normalize_std: bool = True, eps: float = 1e-6
) -> Tensor:
    """Center each group's rewards and, by default, divide by the group's spread. Computed in float64, where squares of
    large float32 rewards do not overflow.

    Args:
        rewards: [G, N], one finite scalar per completion.
        mask: [G, N] bool; False leaves a completion out of the group's mean and spread. None keeps all.
        normalize_std: divide by the population standard deviation. False gives Dr. GRPO.
        eps: added to the standard deviation.

    Returns:
        [G, N]; each row sums to 0; rows of equal rewards and masked completions are exactly 0.

    Raises:
        ValueError: rewards is not 2-D, or N < 2.
    """
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be [num_groups, group_size >= 2], got {tuple(rewards.shape)}")
    exact = rewards.double()
    kept = torch.ones_like(exact) if mask is None else mask.double()
    count = kept.sum(dim=1, keepdim=True).clamp(min=1)
    centered = (exact - (exact * kept).sum(dim=1, keepdim=True) / count) * kept
    # Without this, rounding in the mean gives equal rewards an advantage, and dividing by their std blows it up.
    centered = torch.where(equal_rewards(rewards, mask)[:, None], torch.zeros_like(centered), centered)
    if not normalize_std:
        return centered.to(rewards.dtype)
    std = (centered.square().sum(dim=1, keepdim=True) / count).sqrt()
    return (centered / (std + eps)).to(rewards.dtype)


def equal_rewards(rewards: Tensor, mask: Tensor | None = None) -> Tensor:
    """[G] bool: True where all kept rewards [G, N] of a group are the same, so that it teaches nothing."""
    kept = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    highest = rewards.masked_fill(~kept, -torch.inf).amax(dim=1)
    lowest = rewards.masked_fill(~kept, torch.inf).amin(dim=1)
    return highest <= lowest


def token_weights(
    completion_mask: Tensor,
    *,
    aggregation: str,
    num_completions: int,
    num_tokens: int,
    max_completion_length: int,
) -> Tensor:
    """Weight of each token's loss: the weighted sum over all micro-batches and workers is the loss.

    Args:
        completion_mask: [B, T] bool: True at the completion tokens to learn from.
        aggregation: see GRPOConfig.loss_aggregation.
        num_completions: completions of the global batch.
        num_tokens: completion tokens of the global batch.
        max_completion_length: the constant that Dr. GRPO divides by.

    Returns:
        [B, T] float32, 0 outside the mask.
    """
    mask = completion_mask.float()
    if aggregation == "token":
        return mask / max(num_tokens, 1)
    if aggregation == "constant":
        return mask / (max(num_completions, 1) * max_completion_length)
    return mask / (mask.sum(dim=1, keepdim=True).clamp(min=1) * max(num_completions, 1))


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, epsilon: float, epsilon_high: float | None = None
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate, per token. arXiv:1707.06347.

    Args:
        logprobs, old_logprobs: [B, T], now and at the start of the batch. Gradients flow through ``logprobs`` only.
        advantages: [B], one per completion.

    Returns:
        loss [B, T], and clipped [B, T] bool: True where the clipped term is the smaller one, so that no gradient flows.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    bounded = ratio.clamp(1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high))
    gain, bounded_gain = ratio * advantages[:, None], bounded * advantages[:, None]
    return -torch.minimum(gain, bounded_gain), bounded_gain < gain


def k3_kl(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Unbiased, non-negative estimate of KL(policy, ref policy) per token, [B, T].

    Source: http://joschu.net/blog/kl-approx.html, the estimator k3.
    """
    difference = ref_logprobs - logprobs
    return torch.exp(difference) - difference - 1


def grpo_loss(
    settings: GRPOConfig,
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    *,
    advantages: Tensor,
    completion_mask: Tensor,
    num_completions: int,
    num_tokens: int,
    max_completion_length: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """This micro-batch's part of the loss. The parts of all micro-batches and workers add up to the loss.

    Args:
        logprobs, old_logprobs: [B, T]. Gradients flow through ``logprobs`` only.
        ref_logprobs: [B, T], or None if ``beta`` is 0.
        advantages: [B].
        completion_mask: [B, T] bool. Values outside it are ignored.
        num_completions, num_tokens: of the global batch.
        max_completion_length: the constant that Dr. GRPO divides by.

    Returns:
        the loss, a scalar; the KL estimate [B, T]; clipped [B, T] bool. The last two are 0 or False outside the mask.
    """
    # Mask before exp: a huge ratio at a padding position would give NaN gradients even when multiplied by 0.
    logprobs, old_logprobs = logprobs.where(completion_mask, 0.0), old_logprobs.where(completion_mask, 0.0)
    per_token, clipped = clipped_policy_loss(
        logprobs, old_logprobs, advantages, epsilon=settings.epsilon, epsilon_high=settings.epsilon_high
    )
    kl = torch.zeros_like(logprobs)
    if ref_logprobs is not None:
        kl = k3_kl(logprobs, ref_logprobs.where(completion_mask, 0.0))
        per_token = per_token + settings.beta * kl
    weights = token_weights(
        completion_mask,
        aggregation=settings.loss_aggregation,
        num_completions=num_completions,
        num_tokens=num_tokens,
        max_completion_length=max_completion_length,
    )
    return (per_token * weights).sum(), kl.detach(), clipped & completion_mask
