"""Training of an explicit memory's router: the loop of every worker. Questions find the entries they are about.

The maths is in pipeline/training/memory/routing.py.
"""

from collections.abc import Iterator, Sequence

import torch

from actors.learner.memory_stage import MemoryStage
from actors.learner.session import LearnerSession
from actors.learner.setup import StageSetup
from pipeline.curriculum.examples import Example
from pipeline.seeds import derive_seed
from pipeline.training.memory.examples import in_groups
from pipeline.training.memory.routing import RouterLosses, kept_positions, pooled_losses, token_losses


def router_loop(setup: StageSetup) -> None:
    """Train a memory's router on questions."""
    session = LearnerSession(setup)
    stage = MemoryStage(session, with_kv=False)
    session.begin()
    for stage_step in session.remaining_steps():
        with session.clock("learner"):
            batch = session.ranks.share(session.examples.batch(stage_step))
            metrics = _learn(session, stage, batch, stage_step)
        session.end_step(metrics, score=-metrics["loss"])
    session.finish()


def _learn(session: LearnerSession, stage: MemoryStage, batch: Sequence[Example], stage_step: int) -> dict[str, float]:
    """One optimizer step on this worker's share of a batch."""
    num_tokens = sum(len(example.tokens.prompt) for example in batch)
    num_examples, all_tokens = session.ranks.sum([len(batch), num_tokens])
    total, found = 0.0, dict[int, float]()
    session.begin_update(stage_step)
    for part in _parts(session, batch):
        losses = _losses(session, stage, part)
        (losses.loss / num_examples).backward()
        total += losses.loss.item()
        found = {k: found.get(k, 0.0) + count for k, count in losses.recalled.items()}
    grad_norm = session.update_policy(total / num_examples)
    ks = sorted(found)
    loss, *counts = session.ranks.sum([total, *(found[k] for k in ks)])
    return {
        "loss": loss / num_examples,
        **{f"recall_at_{k}": count / num_examples for k, count in zip(ks, counts, strict=True)},
        "grad_norm": grad_norm,
        "num_examples": num_examples,
        "learner_tokens": all_tokens,
    }


def _parts(session: LearnerSession, batch: Sequence[Example]) -> Iterator[list[Example]]:
    lengths = [len(example.tokens.prompt) for example in batch]
    for rows in in_groups(lengths, session.config.learner.tokens_per_micro_batch):
        yield [batch[row] for row in rows]


def _losses(session: LearnerSession, stage: MemoryStage, part: Sequence[Example]) -> RouterLosses:
    memory = stage.memory
    entries, scores = stage.entries(part)
    if memory.router is None:
        prompts = [example.tokens.prompt for example in part]
        slots = stage.slot_of_entry[entries]
        return token_losses(session.model, memory, prompts, slots, scores, session.dtype)
    states, step = stage.states(part), session.progress.step
    names = [derive_seed(session.config.seed, "pooling", step, example.problem.id) for example in part]
    kept = kept_positions(states.mask, torch.tensor(names, device=states.mask.device), session.settings.token_dropout)
    return pooled_losses(memory, states, kept, entries, scores, stage.nearest_slots)
