"""Policy losses per token, from the ratios to the loss that is minimised.

Shapes: [B, T] tokens of a micro-batch; a row may hold several sequences. All are float32. Each loss also says where its
clip holds the ratio, so that no gradient flows there (CISPO: where its weight is at a bound).

Formulas and sources: docs/losses.md.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

_MAX_LOG_RATIO = 20.0
"""Logarithms of ratios are held within this, where exp of them and the sum of many are still finite."""


@dataclass(frozen=True)
class Sequences:
    """Which tokens of a micro-batch make up which sequence. Tokens outside the mask belong to none."""

    owners: Tensor
    """[B, T]: number of a token's sequence, from 0."""
    mask: Tensor
    """[B, T] bool: tokens that count."""
    count: int
    """Above every number in ``owners``."""

    def sums(self, values: Tensor) -> Tensor:
        """At every token the sum of the values over its sequence."""
        sums = values.new_zeros(self.count).index_add(0, self.owners.flatten(), (values * self.mask).flatten())
        return sums[self.owners]

    @cached_property
    def lengths(self) -> Tensor:
        """At every token the number of tokens of its sequence, at least 1."""
        return self.sums(self.mask.float()).clamp(min=1)

    def means(self, values: Tensor) -> Tensor:
        """At every token the mean of the values over its sequence."""
        return self.sums(values) / self.lengths


class TokenLosses(NamedTuple):
    """Both [B, T]."""

    loss: Tensor
    clipped: Tensor
    """bool"""


def log_ratios(logprobs: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """log(policy / other policy) per token in float32, 0 outside the mask, where the inputs may be anything. The mask
    is applied before exp, because an infinite ratio has NaN gradients even when multiplied by 0."""
    difference = logprobs.float().where(mask, 0.0) - others.float().where(mask, 0.0)
    return difference.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def sequence_ratios(log_ratio: Tensor, sequences: Sequences) -> Tensor:
    """At every token the geometric mean of its sequence's ratios. Its gradient is straight-through: the gradient of the
    token's own ratio. If all tokens of a sequence weigh the same, these sum to the sequence ratio's (GSPO-token)."""
    own = log_ratio - log_ratio.detach()
    return torch.exp(sequences.means(log_ratio.detach()) + own)


def product_ratios(log_ratio: Tensor, sequences: Sequences) -> Tensor:
    """At every token the product of its sequence's ratios, straight-through: the mean over a sequence's tokens has the
    value and the gradient of the product."""
    own = (log_ratio - log_ratio.detach()) * sequences.lengths
    return torch.exp(sequences.sums(log_ratio.detach()).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO) + own)


def clipped_loss(ratio: Tensor, advantages: Tensor, clip_range: tuple[float, float]) -> TokenLosses:
    """PPO's clipped surrogate. arXiv:1707.06347."""
    gain, bounded_gain = ratio * advantages, ratio.clamp(*clip_range) * advantages
    return TokenLosses(-torch.minimum(gain, bounded_gain), bounded_gain < gain)


def cispo_loss(logprobs: Tensor, ratio: Tensor, advantages: Tensor, clip_range: tuple[float, float]) -> TokenLosses:
    """REINFORCE whose weight is the clipped ratio, as a constant: every token keeps a gradient. arXiv:2506.13585."""
    ratio = ratio.detach()
    weight = ratio.clamp(*clip_range)
    return TokenLosses(-weight * advantages * logprobs, weight != ratio)


def geometric_mean_loss(
    log_ratio: Tensor, advantages: Tensor, sequences: Sequences, clip_range: tuple[float, float]
) -> TokenLosses:
    """GMPO: the geometric mean of a sequence's ratios, each clipped first on the side to which its advantage pushes it.
    Straight-through, like ``sequence_ratios``. arXiv:2507.20673."""
    low, high = torch.tensor(clip_range, device=log_ratio.device).log()
    held = torch.where(advantages > 0, log_ratio.clamp(max=high), log_ratio.clamp(min=low))
    return TokenLosses(-advantages * sequence_ratios(held, sequences), (held != log_ratio) & (advantages != 0))


def k3_kl(log_ratio: Tensor) -> Tensor:
    """Unbiased, non-negative estimate of KL(policy, ref policy) per token, given log(ref policy / policy).

    Source: http://joschu.net/blog/kl-approx.html, the estimator k3.
    """
    return torch.exp(log_ratio) - log_ratio - 1


def policy_entropy(logits: Tensor, temperature: float) -> Tensor:
    """Entropy [B, T] of softmax(logits [B, T, V] / temperature) in nats, with a gradient."""
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
