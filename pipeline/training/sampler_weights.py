"""Weights of the policy loss that correct for the difference between sampler and learner. Both should compute the same
log-probabilities, but do not: they differ in kernels, rounding and the age of their weights.

Formulas and sources: docs/losses.md.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config import GRPOConfig
from pipeline.training.policy_losses import Sequences, product_ratios, sequence_ratios


class SamplerWeights(NamedTuple):
    """Both [B, T]."""

    weights: Tensor
    """0 outside the mask."""
    clipped: Tensor
    """bool: tokens whose ratio was truncated, or that were masked."""


def sampler_weights(settings: GRPOConfig, log_ratio: Tensor, sequences: Sequences) -> SamplerWeights:
    """Constant weights of tokens, by ``sampler_correction``; without one all are 1.

    Args:
        log_ratio: [B, T], log(learner before its first update of the batch / sampler), 0 outside the mask.
    """
    correction, low, high = settings.sampler_correction, settings.sampler_ratio_min, settings.sampler_ratio_max
    if correction == "none":
        return SamplerWeights(sequences.mask.float(), torch.zeros_like(sequences.mask))
    if correction == "sequence_mask":
        ratio = sequence_ratios(log_ratio, sequences)
    elif correction == "sequence_truncate":
        ratio = product_ratios(log_ratio, sequences)
    else:
        ratio = torch.exp(log_ratio)
    if correction.endswith("truncate"):
        weights, clipped = ratio.clamp(max=high), ratio > high
    else:
        clipped = (ratio < low) | (ratio > high)
        weights = torch.where(clipped, 0.0, torch.ones_like(ratio) if correction == "sequence_mask" else ratio)
    return SamplerWeights(weights * sequences.mask, clipped & sequences.mask)


def effective_sample_frac(weight_sum: float, weight_squares: float, count: float) -> float:
    """Effective sample size of ``count`` weights as a share of them: 1 if all are equal; 0 if all are 0."""
    return weight_sum**2 / (count * weight_squares) if weight_squares else 0.0
