"""The loss of supervised fine-tuning, per token."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline.config import SFTConfig
from pipeline.training.batching import COMPILED_MULTIPLE, MicroBatch, TokenSequence, micro_batches
from pipeline.training.logprobs import next_token_logits, token_logprobs


def learned_tokens(example: TokenSequence, loss_on: str) -> TokenSequence:
    """The example with the tokens to learn as its completion: with ``all``, every token but the first."""
    if loss_on == "completion":
        return example
    tokens = (*example.prompt, *example.completion)
    return TokenSequence(tokens[:1], tokens[1:])


def solution_batches(
    sequences: Sequence[TokenSequence], settings: SFTConfig, max_tokens: int, device: torch.device, dtype: torch.dtype
) -> list[MicroBatch]:
    """Micro-batches of at most ``max_tokens`` tokens, packed or padded as the settings say."""
    multiple = settings.pad_to_multiple_of
    if settings.packing and device.type == "cpu" and dtype == torch.bfloat16:
        multiple = math.lcm(multiple, COMPILED_MULTIPLE)
    return micro_batches(sequences, max_tokens, device, packing=settings.packing, pad_to_multiple_of=multiple)


def token_losses(model: nn.Module, batch: MicroBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the batch's targets, and whether the likeliest token is the target.

    Returns:
        losses [B, T] float32 and hits [B, T] bool; 0 and False outside of completions.
    """
    logits = next_token_logits(model, batch, dtype)
    losses = -token_logprobs(logits, batch.targets) * batch.completion_mask
    likeliest = logits.detach().max(dim=-1).indices  # on a CPU argmax is five times slower
    hits = (likeliest == batch.targets) & batch.completion_mask
    return losses, hits


@torch.no_grad()
def held_out_sums(model: nn.Module, batches: Iterable[MicroBatch], dtype: torch.dtype) -> list[float]:
    """[loss, hits, tokens], each summed over the completions of held-out examples, with dropout off."""
    training = model.training
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        losses, hits = token_losses(model, batch, dtype)
        sums += torch.stack([losses.sum(), hits.sum(), batch.completion_mask.sum()]).cpu()
    model.train(training)
    return sums.tolist()


def perplexity(loss: float) -> float:
    """exp of the mean loss; infinity if that exceeds a float."""
    return math.inf if loss >= 700 else math.exp(loss)
