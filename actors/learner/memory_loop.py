"""Supervised fine-tuning of an explicit memory: the loop of every worker. The backbone is frozen.

The maths is in pipeline/training/memory/fusion.py.
"""

from collections.abc import Iterator, Sequence

import torch

from actors.learner.memory_stage import MemoryStage
from actors.learner.session import LearnerSession
from actors.learner.setup import StageSetup
from pipeline.config import MemoryConfig
from pipeline.curriculum.examples import Example
from pipeline.seeds import derive_seed
from pipeline.training.memory.examples import GivenExample, in_groups
from pipeline.training.memory.fusion import FusionLosses, given_form_losses, pad_entries, token_form_losses
from pipeline.training.sft import learned_tokens, perplexity


def memory_loop(setup: StageSetup) -> None:
    """Train a memory's fusion on conversations."""
    session = LearnerSession(setup)
    config = session.config.memory
    assert config is not None
    stage = MemoryStage(session, with_kv=True) if config.selection == "given" else None
    session.begin()
    for stage_step in session.remaining_steps():
        with session.clock("learner"):
            batch = session.ranks.share(session.examples.batch(stage_step))
            learned = _Given(session, stage, batch) if stage else _Searched(session, batch)
            metrics = _learn(session, config, learned, stage_step)
        session.end_step(metrics, score=-metrics["loss"])
    session.finish()


def _learn(
    session: LearnerSession, config: MemoryConfig, learned: "_Given | _Searched", stage_step: int
) -> dict[str, float]:
    """One optimizer step on this worker's share of a batch."""
    own = [learned.num_learned, learned.num_tokens, learned.num_examples, learned.num_rewritten]
    num_learned, num_tokens, num_examples, num_rewritten = session.ranks.sum(own)
    totals = torch.zeros(4, dtype=torch.float64)  # loss, right tokens, similarity, diversity
    session.begin_update(stage_step)
    for sums in learned.losses():
        loss = sums.loss / num_learned
        loss = loss - config.similarity_loss_coef * sums.similarity / num_tokens
        loss = loss + config.diversity_loss_coef * sums.diversity / num_tokens
        loss.backward()
        parts = (sums.loss, sums.num_hits, sums.similarity, sums.diversity)
        totals += torch.stack([part.detach().double().cpu() for part in parts])
    grad_norm = session.update_policy(totals[0].item() / num_learned)
    loss_sum, num_hits, similarity, diversity = session.ranks.sum(totals.tolist())
    own_metrics = {"counterfactual_frac": num_rewritten / num_examples}
    if isinstance(learned, _Searched):
        own_metrics = {"memory_similarity": similarity / num_tokens, "memory_diversity": diversity / num_tokens}
    return {
        "loss": loss_sum / num_learned,
        "perplexity": perplexity(loss_sum / num_learned),
        "token_accuracy": num_hits / num_learned,
        **own_metrics,
        "grad_norm": grad_norm,
        "num_examples": num_examples,
        "num_tokens": num_learned,
        "learner_tokens": num_tokens,
    }


class _Searched:
    """Examples of which every position looks for an entry of its own."""

    def __init__(self, session: LearnerSession, batch: Sequence[Example]) -> None:
        self._session = session
        self._sequences = [learned_tokens(example.tokens, session.settings.loss_on) for example in batch]
        step = session.progress.step
        self._seeds = [derive_seed(session.config.seed, "gumbel", step, example.problem.id) for example in batch]
        self.num_examples, self.num_rewritten = len(batch), 0
        self.num_tokens = sum(map(len, self._sequences))
        self.num_learned = sum(sequence.num_learned for sequence in self._sequences)

    def losses(self) -> Iterator[FusionLosses]:
        session = self._session
        for batch in session.solution_batches(self._sequences):
            lengths = [len(self._sequences[row]) for row in batch.rows]
            seeds = [self._seeds[row] for row in batch.rows]
            yield token_form_losses(session.model, batch, lengths, seeds, session.dtype)


class _Given:
    """Examples whose entries are given, among others that the router finds. Some are counterfactual."""

    def __init__(self, session: LearnerSession, stage: MemoryStage, batch: Sequence[Example]) -> None:
        self._session, self._stage, self._batch = session, stage, batch
        self._given: list[GivenExample] = stage.given(batch, session.progress.step)
        self._lengths = [
            len(example.tokens.prompt) + len(given.completion)
            for example, given in zip(batch, self._given, strict=True)
        ]
        self.num_examples, self.num_tokens = len(batch), sum(self._lengths)
        self.num_learned = sum(len(given.completion) for given in self._given)
        self.num_rewritten = sum(given.is_counterfactual for given in self._given)

    def losses(self) -> Iterator[FusionLosses]:
        session, stage = self._session, self._stage
        for rows in in_groups(self._lengths, session.config.learner.tokens_per_micro_batch):
            batch, given = [self._batch[row] for row in rows], [self._given[row] for row in rows]
            states = stage.states(batch)
            own = pad_entries([example.entry_tokens for example in given], stage.memory.config.knowledge_length)
            others = stage.distractors(states, given)
            yield given_form_losses(
                session.model,
                states,
                [example.tokens.prompt[-1] for example in batch],
                [example.completion for example in given],
                torch.cat([own.to(others)[:, None], others], dim=1),
                session.dtype,
            )
