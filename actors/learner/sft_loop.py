"""Supervised fine-tuning: the loop that every Ray Train worker runs from its first line to its last.

Plain SPMD: each worker takes its share of a step's examples, computes its part of the loss, and gradients are
summed over workers. The maths is in pipeline/training/sft.py; LearnerSession handles models, checkpoints, metrics
and weights.
"""

from collections.abc import Sequence

import torch

from actors.learner.session import LearnerSession
from actors.learner.setup import StageSetup
from pipeline.config import SFTConfig
from pipeline.curriculum.examples import Example
from pipeline.models.compute_copies import computing_in
from pipeline.training.batching import padding_frac
from pipeline.training.sft import learned_tokens, perplexity, token_losses


def sft_loop(setup: StageSetup) -> None:
    """Supervised fine-tuning on worked solutions."""
    session = LearnerSession(setup)
    session.begin()
    for stage_step in session.remaining_steps():
        with session.clock("learner"):
            batch = session.ranks.share(session.examples.batch(stage_step))
            metrics = _learn_solutions(session, batch, stage_step)
        session.end_step(metrics | session.evaluate_if_due(), score=-metrics["loss"])
    session.finish()


def _learn_solutions(session: LearnerSession, batch: Sequence[Example], stage_step: int) -> dict[str, float]:
    """One optimizer step on this worker's share of a batch of worked solutions."""
    settings: SFTConfig = session.settings
    sequences = [learned_tokens(example.tokens, settings.loss_on) for example in batch]
    replayed = torch.tensor([example.is_replayed for example in batch]).long()
    micro_batches = session.solution_batches(sequences)
    (num_tokens,) = session.ranks.sum([sum(sequence.num_learned for sequence in sequences)])
    totals = torch.zeros(2, 4, dtype=torch.float64)  # new, replayed: loss, right tokens, tokens, examples
    totals[:, 3] = replayed.bincount(minlength=2)
    session.begin_update(stage_step)
    with computing_in(session.model, session.dtype):
        for micro_batch in micro_batches:
            losses, hits = token_losses(session.model, micro_batch, session.dtype)
            (losses.sum() / num_tokens).backward()
            counted = torch.stack([losses.detach(), hits, micro_batch.completion_mask], dim=-1).flatten(0, 1)
            totals[:, :3].index_add_(0, replayed[micro_batch.owners.flatten().cpu()], counted.cpu().double())
    grad_norm = session.update_policy(totals[:, 0].sum().item() / num_tokens)
    learner_tokens = sum(len(sequence) for sequence in sequences)
    sums = session.ranks.sum(totals.flatten().tolist())
    new, old = sums[:4], sums[4:]
    loss, num_hits, _, num_examples = (a + b for a, b in zip(new, old, strict=True))
    return {
        "loss": loss / num_tokens,
        "perplexity": perplexity(loss / num_tokens),
        "token_accuracy": num_hits / num_tokens,
        **_by_origin(new, old),
        "grad_norm": grad_norm,
        "num_examples": num_examples,
        "num_tokens": num_tokens,
        "padding_frac": padding_frac(micro_batches, learner_tokens),
        "learner_tokens": session.ranks.sum([learner_tokens])[0],
    }


def _by_origin(new: list[float], replayed: list[float]) -> dict[str, float]:
    """Loss and token accuracy of new and of replayed examples, if any are replayed."""
    if not replayed[3]:
        return {}
    metrics = {"num_replayed": replayed[3]}
    for name, (loss, hits, tokens, _) in (("new", new), ("replayed", replayed)):
        if tokens:
            metrics |= {f"loss_{name}": loss / tokens, f"token_accuracy_{name}": hits / tokens}
    return metrics
