"""The loss of supervised fine-tuning, token by token."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.training.batching import MicroBatch, TokenSequence
from pipeline.training.logprobs import next_token_logits, token_logprobs


def learned_tokens(example: TokenSequence, loss_on: str) -> TokenSequence:
    """The example with what the loss is on as its completion: with ``all``, every token but the first."""
    if loss_on == "completion":
        return example
    tokens = (*example.prompt, *example.completion)
    return TokenSequence(tokens[:1], tokens[1:])


def token_losses(model: nn.Module, batch: MicroBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cross-entropy [B, T] of the batch's targets, in float32, and whether the likeliest token [B, T] is the right one.
    0 and False outside of completions."""
    logits = next_token_logits(model, batch, dtype)
    losses = -token_logprobs(logits, batch.targets) * batch.completion_mask
    likeliest = logits.detach().max(dim=-1).indices  # argmax is five times slower on a CPU
    hits = (likeliest == batch.targets) & batch.completion_mask
    return losses, hits


@torch.no_grad()
def held_out_sums(model: nn.Module, batches: Iterable[MicroBatch], dtype: torch.dtype) -> list[float]:
    """(loss, right tokens, tokens), each summed over the completions of held-out examples, with dropout off."""
    training = model.training
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        losses, hits = token_losses(model, batch, dtype)
        sums += torch.stack([losses.sum(), hits.sum(), batch.completion_mask.sum()]).cpu()
    model.train(training)
    return sums.tolist()


def perplexity(loss: float) -> float:
    """exp of the mean loss; infinite where that is too large for a number."""
    return math.inf if loss >= 700 else math.exp(loss)
