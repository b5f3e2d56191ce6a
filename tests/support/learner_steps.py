"""Steps of SFT and GRPO from ``pipeline`` alone, on one device: what the learner does without its actors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import GRPOConfig, SFTConfig
from pipeline.models.compute_copies import computing_in
from pipeline.models.policy import swapped_in, trainable_tensors
from pipeline.training.batching import MicroBatch, TokenSequence, micro_batches
from pipeline.training.grpo import grpo_loss
from pipeline.training.logprobs import next_token_logits, token_entropy, token_logprobs
from pipeline.training.policy_losses import Sequences
from pipeline.training.sft import solution_batches, token_losses


def adamw(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(list(trainable_tensors(model).values()), lr=learning_rate, weight_decay=0.0, fused=True)


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def sft_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sequences: Sequence[TokenSequence],
    *,
    dtype: torch.dtype,
    max_tokens: int,
    packing: bool = True,
) -> float:
    """One update on worked solutions. Returns the loss per token before it."""
    num_tokens, total = sum(len(sequence.completion) for sequence in sequences), 0.0
    batches = solution_batches(sequences, SFTConfig(packing=packing), max_tokens, device_of(model), dtype)
    with computing_in(model, dtype):
        for batch in batches:
            loss = token_losses(model, batch, dtype)[0].sum() / num_tokens
            loss.backward()
            total += loss.item()
    _update(model, optimizer)
    return total


def grpo_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sequences: Sequence[TokenSequence],
    advantages: Tensor,
    settings: GRPOConfig,
    *,
    dtype: torch.dtype,
    max_tokens: int,
    reference: dict[str, Tensor] | None = None,
) -> float:
    """``mu`` updates on completions and their advantages. Returns the loss of the last, before it."""
    batches = micro_batches(sequences, max_tokens, device_of(model))
    num_tokens = sum(len(sequence.completion) for sequence in sequences)
    references = _reference_logprobs(model, batches, dtype, reference)
    old: list[Tensor] = []
    for _ in range(settings.mu):
        total = 0.0
        with computing_in(model, dtype):
            for index, batch in enumerate(batches):
                logits = next_token_logits(model, batch, dtype)
                logprobs = token_logprobs(logits, batch.targets)
                if index == len(old):
                    old.append(logprobs.detach())
                loss = grpo_loss(
                    settings,
                    logprobs,
                    old[index],
                    references[index],
                    advantages=advantages.to(logprobs.device),
                    sequences=Sequences(batch.owners, batch.completion_mask, len(sequences)),
                    num_completions=len(sequences),
                    num_tokens=num_tokens,
                    max_completion_length=max(len(sequence.completion) for sequence in sequences),
                ).loss
                loss.backward()
                total += loss.item()
                (token_entropy(logits.detach()) * batch.completion_mask).sum().item()  # a metric of every step
                del logits, logprobs, loss
        _update(model, optimizer)
    return total


def _reference_logprobs(
    model: nn.Module, batches: Sequence[MicroBatch], dtype: torch.dtype, reference: dict[str, Tensor] | None
) -> Sequence[Any]:
    if reference is None:
        return [None] * len(batches)
    with torch.no_grad(), swapped_in(model, reference), computing_in(model, dtype):
        return [token_logprobs(next_token_logits(model, batch, dtype), batch.targets) for batch in batches]


def _update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(list(trainable_tensors(model).values()), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
