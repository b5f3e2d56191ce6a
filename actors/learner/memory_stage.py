"""The parts of a stage that trains an explicit memory: the entries of its examples, and the states of its prompts."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from actors.learner.session import LearnerSession
from pipeline.curriculum.examples import Example
from pipeline.data.omcq import read_knowledge
from pipeline.data.sources import iter_rows
from pipeline.errors import DataError
from pipeline.models.memory.attach import memory_of
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.memory.prompts import PromptStates
from pipeline.training.memory.examples import TARGET_FIELDS, Counterfactuals, GivenExample, Target, read_targets
from pipeline.training.memory.prompt_cache import PromptCache
from pipeline.training.memory.routing import target_entries


class MemoryStage:
    """Looks up the examples of a batch.

    Args:
        with_kv: the loop needs keys and values of prompts, not hidden states alone.

    Raises:
        DataError: a training example names no entry.
    """

    def __init__(self, session: LearnerSession, *, with_kv: bool) -> None:
        config = session.config
        assert config.memory is not None
        memory = memory_of(session.model)
        assert memory is not None
        self.memory: ExplicitMemory = memory
        knowledge = read_knowledge(Path(config.memory.knowledge))
        id_field = config.data.fields.id
        if id_field is None:
            raise DataError("data.fields.id must be set for stages that train a router or read given entries.")
        rows = iter_rows(config.data, config.data.train_split, optional=TARGET_FIELDS)
        self._targets = read_targets(rows, id_field, len(knowledge))
        self._rewriting = Counterfactuals(
            knowledge, session.tokenizer, config.memory.counterfactual_frac, config.memory.knowledge_length, config.seed
        )
        problems = session.examples.problems
        self._index = {head.id: index for index, head in enumerate(problems.heads())}
        table, limit_gib = session.examples.table, config.memory.prompt_cache_gib
        self._cache = PromptCache(session.model, table.prompt, table.prompt_lengths(), limit_gib, with_kv=with_kv)

    def targets(self, batch: Sequence[Example]) -> list[Target]:
        return [self._targets[example.problem.id] for example in batch]

    def entries(self, batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Indices and scores [B, M] of the entries that the examples are about."""
        return target_entries(self.targets(batch), self.memory.embedding.device)

    @cached_property
    def slot_of_entry(self) -> Tensor:
        """[E]"""
        return self.memory.bank.slot_of_entry()

    @cached_property
    def nearest_slots(self) -> Tensor:
        """[E]: the slot whose keys are nearest to each entry."""
        assert self.memory.router is not None
        with torch.no_grad():
            return self.memory.router.nearest_slots(self.memory.bank.embeddings[:-1])

    def states(self, batch: Sequence[Example]) -> PromptStates:
        """The prompts' states, computed without the memory and in the backbone's own dtype."""
        return self._cache.states([self._index[example.problem.id] for example in batch])

    def given(self, batch: Sequence[Example], step: int) -> list[GivenExample]:
        """The examples with their entries, some of them rewritten. Raises DataError for an example that learns several
        turns, because an entry is about one answer."""
        if several := [example.problem.id for example in batch if example.tokens.learned is not None]:
            raise DataError(
                f"examples whose entries are given must have one answer, got several turns in {several[0]}."
            )
        return [
            self._rewriting.make(example.problem, self._targets[example.problem.id], example.tokens.completion, step)
            for example in batch
        ]

    @torch.no_grad()
    def distractors(self, states: PromptStates, given: Sequence[GivenExample]) -> Tensor:
        """Token ids [B, M - 1, L] of the entries that the router ranks highest, without the examples' own."""
        router, bank = self.memory.router, self.memory.bank
        assert router is not None
        count = self.memory.config.num_selected
        if count == 1:
            return bank.token_ids.new_zeros(len(given), 0, bank.token_ids.shape[1])
        _, best = router.find(router(states.hidden, states.mask), bank, count=count)
        own = torch.tensor([example.entry for example in given], device=best.device)
        is_own = bank.entry_of_slot[best] == own[:, None]
        kept = is_own.long().argsort(dim=1, stable=True)[:, : count - 1]
        return bank.tokens(best.gather(1, kept))
