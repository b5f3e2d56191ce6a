"""Log-probabilities and entropies of a micro-batch's targets.

Shapes: B rows and T targets per row as in MicroBatch, vocabulary V.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.models.attention import can_share_prompts, packing_arguments
from pipeline.models.device import autocast
from pipeline.training.batching import COMPILED_MULTIPLE, MicroBatch, TokenSequence, micro_batches


def completion_batches(
    model: nn.Module, sequences: Sequence[TokenSequence], max_tokens: int, dtype: torch.dtype
) -> list[MicroBatch]:
    """Micro-batches of sampled completions: packed with shared prompts if the model can, otherwise padded."""
    device = next(model.parameters()).device
    multiple = COMPILED_MULTIPLE if device.type == "cpu" and dtype == torch.bfloat16 else 1
    if not can_share_prompts(model):
        return micro_batches(sequences, max_tokens, device)
    return micro_batches(sequences, max_tokens, device, share_prompts=True, pad_to_multiple_of=multiple)


def next_token_logits(model: nn.Module, batch: MicroBatch, dtype: torch.dtype) -> Tensor:
    """Logits [B, T, V] for the batch's targets, computed in ``dtype``; other positions are never projected."""
    packed = packing_arguments(model, batch.groups, batch.input_ids.device) if batch.groups else {}
    with autocast(batch.input_ids.device, dtype):
        output = model(input_ids=batch.input_ids, logits_to_keep=batch.positions, use_cache=False, **packed)
    return cast(Tensor, output.logits)


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [B, T] of targets [B, T] under softmax(logits [B, T, V] / temperature), in float32."""
    return _apply(logits, targets, temperature, False)[0]


def logprobs_and_entropy(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """``token_logprobs`` and ``token_entropy``, from one softmax. The entropy [B, T] has no gradient."""
    return _apply(logits, targets, temperature, True)


def _apply(logits: Tensor, targets: Tensor, temperature: float, with_entropy: bool) -> tuple[Tensor, Tensor]:
    arguments = (logits.flatten(0, 1), targets.flatten(), temperature, with_entropy)
    logprobs, entropy = _TokenLogprobs.apply(*arguments)  # type: ignore[no-untyped-call]
    return logprobs.view_as(targets), entropy.view_as(targets) if with_entropy else entropy


@torch.no_grad()
def text_logprobs(model: nn.Module, token_ids: Sequence[int], dtype: torch.dtype) -> tuple[float, ...]:
    """Log-probability of each token but the first, given the tokens before it. Without dropout."""
    device, training = next(model.parameters()).device, model.training
    text = TokenSequence(tuple(token_ids[:1]), tuple(token_ids[1:]))
    (batch,) = micro_batches([text], len(text), device)
    if training:  # otherwise there is no dropout, and layers that checkpoint gradients must stay as they are
        model.eval()
    try:
        logits = next_token_logits(model, batch, dtype)
    finally:
        if training:
            model.train()
    return tuple(token_logprobs(logits, batch.targets)[0].tolist())


class _TokenLogprobs(torch.autograd.Function):
    """Works on a block of rows at a time, so that memory never holds a float32 copy of all logits. For the gradient it
    keeps the logits themselves and one number per row."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """logits [N, V], targets [N] -> log-probabilities [N]; entropies [N], or [0] if they are not wanted"""
        logprobs = torch.empty_like(targets, dtype=torch.float32)
        log_normalizers = torch.empty_like(logprobs)
        entropy = torch.empty_like(logprobs) if with_entropy else logprobs.new_empty(0)
        for rows in _row_blocks(logits):
            scaled = _scaled(logits[rows], temperature)
            all_logprobs = torch.log_softmax(scaled, dim=-1)
            logprobs[rows] = all_logprobs.gather(1, targets[rows, None])[:, 0]
            log_normalizers[rows] = scaled.amax(dim=-1) - all_logprobs.amax(dim=-1)
            if with_entropy:
                entropy[rows] = _entropy(all_logprobs, out=scaled)
        ctx.save_for_backward(logits, targets, log_normalizers)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """(1[v = target] - softmax_v) / temperature, times the gradient of the row."""
        logits, targets, log_normalizers = ctx.saved_tensors
        weights = (gradients[0] / ctx.temperature)[:, None]
        result = torch.empty_like(logits)
        for rows in _row_blocks(logits):
            scaled = _scaled(logits[rows], ctx.temperature)
            block = scaled.sub_(log_normalizers[rows, None]).exp_().mul_(-weights[rows])
            result[rows] = block.scatter_add_(1, targets[rows, None], weights[rows])
        return result, None, None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature in float32, always a copy."""
    scaled = logits.to(torch.float32, copy=True)
    return scaled if temperature == 1 else scaled.div_(temperature)


def _row_blocks(logits: Tensor) -> list[slice]:
    """Blocks of as many rows as fit into a CPU's cache in float32, or as keep a GPU busy."""
    size = max(1, (2**20 if logits.device.type == "cpu" else 2**26) // logits.shape[1])
    return [slice(start, start + size) for start in range(0, len(logits), size)]


@torch.no_grad()
def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy [B, T] of softmax(logits [B, T, V] / temperature), in nats."""
    flat = logits.flatten(0, 1)
    entropy = torch.empty(len(flat), device=logits.device)
    for rows in _row_blocks(flat):
        scaled = _scaled(flat[rows], temperature)
        entropy[rows] = _entropy(torch.log_softmax(scaled, dim=-1), out=scaled)
    return entropy.view(logits.shape[:-1])


def _entropy(logprobs: Tensor, out: Tensor) -> Tensor:
    """[N] of log-probabilities [N, V]. ``out`` is overwritten."""
    return torch.exp(logprobs, out=out).mul_(logprobs).sum(dim=-1).neg_()
