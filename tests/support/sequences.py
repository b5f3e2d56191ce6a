"""A few token sequences of different lengths, and a model's logprobs of them."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.training.batching import TokenSequence, micro_batches
from pipeline.training.logprobs import next_token_logits, token_logprobs

CPU = torch.device("cpu")


def sequence(prompt: int, completion: int, seed: int = 0) -> TokenSequence:
    draw = random.Random(f"{prompt} {completion} {seed}")
    return TokenSequence(tuple(draw.choices(range(256), k=prompt)), tuple(draw.choices(range(256), k=completion)))


SEQUENCES = [sequence(4, 3), sequence(9, 1), sequence(2, 12), sequence(1, 1), sequence(6, 6), sequence(3, 8)]
"""Lengths 7, 10, 14, 2, 12, 11."""
GROUPS = [
    TokenSequence(sequence(prompt, 0).prompt, sequence(0, completion).completion)
    for prompt, completion in [(5, 40), (5, 3), (9, 7), (5, 38), (5, 1), (9, 33), (4, 6), (9, 1)]
]
"""Completions of three prompts; some are computed together."""


def logprobs_and_gradients(
    model: Any,
    max_tokens: int,
    *,
    sequences: Sequence[TokenSequence] = SEQUENCES,
    dtype: torch.dtype = torch.float32,
    **layout: Any,
) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """Log-probabilities of each sequence's completion tokens, and the gradients of their mean, token i weighted 1 + i.

    Args:
        dtype: of the passes.
        layout: of ``micro_batches``.
    """
    model.zero_grad()
    num_tokens = sum(len(s.completion) for s in sequences)
    by_row = {}
    device = next(model.parameters()).device
    for batch in micro_batches(sequences, max_tokens, device, **layout):
        logprobs = token_logprobs(next_token_logits(model, batch, dtype), batch.targets)
        for row in batch.rows:
            by_row[row] = logprobs[(batch.owners == row) & batch.completion_mask]
        weighted = [(by_row[row] * torch.arange(1.0, len(by_row[row]) + 1, device=device)).sum() for row in batch.rows]
        (torch.stack(weighted).sum() / num_tokens).backward()
    return by_row, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
