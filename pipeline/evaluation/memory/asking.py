"""Asks questions under every condition. The states of the prompts are computed once for all of them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.config import DataConfig
from pipeline.data.omcq import ChoiceQuestion
from pipeline.data.problems import question_alone
from pipeline.evaluation.memory.conditions import CONDITIONS, BankName, Condition
from pipeline.evaluation.memory.lookups import Lookups, layer_lookups, no_lookups, routed_lookups
from pipeline.evaluation.memory.matching import compare
from pipeline.models.memory.attach import memory_of
from pipeline.models.memory.bank import KnowledgeBank
from pipeline.models.memory.generation import Route, find_route, read_whole_prompts, write_answers
from pipeline.models.memory.memory import ExplicitMemory, Reading
from pipeline.models.memory.prompts import PromptStates, answer_output, padded_right, read_prompts
from pipeline.models.memory.usage import bank_use
from pipeline.models.tokenizer import Tokenizer, batch_token_ids
from pipeline.training.logprobs import token_logprobs
from pipeline.types import Message

logger = logging.getLogger(__name__)
Row = dict[str, Any]
"""A row of answers.jsonl: a question under one condition. docs/memory_evaluation.md."""


@dataclass(frozen=True)
class Asking:
    """Settings of an evaluation."""

    conditions: Sequence[str]
    end_ids: Sequence[int]
    data: DataConfig = field(default_factory=DataConfig)
    """How the questions are asked."""
    batch_size: int = 32
    max_new_tokens: int = 24
    num_looked_up: int = 200
    """Questions whose lookups are kept, if every position of every layer has one of its own."""


@dataclass(frozen=True)
class Batch:
    """Questions in one wording."""

    questions: Sequence[ChoiceQuestion]
    wordings: Sequence[tuple[Message, ...]]
    """Conversations: the question, and the answer."""
    prompts: list[list[int]]
    last_tokens: Tensor
    """[B]"""
    states: PromptStates | None
    """Without memory, if all conditions share them."""


class Asker:
    """Asks a model that may have a memory.

    Args:
        banks: the memory's own and altered ones.
        objects: those that were written into the ``swapped`` bank, by entry.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        settings: Asking,
        banks: Mapping[BankName, KnowledgeBank],
        objects: Mapping[int, str],
    ) -> None:
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._memory: ExplicitMemory | None = memory_of(model)
        self._banks, self._objects = banks, objects
        self._num_looked_up = 0
        self.counts: dict[str, Tensor] = {}
        """By condition: how often each entry was chosen."""

    def ask(self, questions: Sequence[ChoiceQuestion]) -> list[Row]:
        """The rows of all questions and conditions, by question."""
        rows: dict[tuple[str, str], Row] = {}
        order = sorted(questions, key=lambda question: len(question.conversations[0]["content"]))
        for start in range(0, len(order), self._settings.batch_size):
            batch = order[start : start + self._settings.batch_size]
            for row in self._rows(batch):
                rows[row["question_id"], row["condition"]] = row
            logger.info("asked %d of %d questions", start + len(batch), len(order))
        return [rows[question.question_id, name] for question in questions for name in self._settings.conditions]

    def _rows(self, questions: Sequence[ChoiceQuestion]) -> Iterator[Row]:
        for is_unseen in (False, True):
            names = [name for name in self._settings.conditions if CONDITIONS[name].is_unseen == is_unseen]
            if names:
                batch = self._batch(questions, is_unseen)
                for name in names:
                    yield from self._asked(batch, name)

    def _batch(self, questions: Sequence[ChoiceQuestion], is_unseen: bool) -> Batch:
        wordings = [q.conversations_unseen if is_unseen else q.conversations for q in questions]
        problems = [question_alone(wording[:-1], self._settings.data) for wording in wordings]
        prompts = batch_token_ids(self._tokenizer, problems)
        device = self._model.get_input_embeddings().weight.device
        last_tokens = torch.tensor([prompt[-1] for prompt in prompts], device=device)
        is_shared = self._memory is not None and self._memory.router is not None
        states = read_prompts(self._model, prompts) if is_shared else None
        return Batch(questions, wordings, prompts, last_tokens, states)

    def _asked(self, batch: Batch, name: str) -> Iterator[Row]:
        condition = CONDITIONS[name]
        with self._bank(condition.bank):
            route = self._route(batch, condition)
            with self._reading(condition, route):
                states = batch.states or read_whole_prompts(self._model, batch.prompts)
                limits = self._settings.end_ids, self._settings.max_new_tokens
                written = write_answers(self._model, states, batch.last_tokens, *limits)
                scores = self._option_scores(batch, states) if condition.reads == "nothing" else None
            found = self._lookups(batch, condition, route, written)
        self._count(name, found)
        for index, question in enumerate(batch.questions):
            row = self._answer(question, name, batch.wordings[index], written[index])
            ranked = {"ranked": question.options[int(scores[index].argmax())]} if scores is not None else {}
            yield row | ranked | found.rows[index]

    @contextmanager
    def _bank(self, name: BankName) -> Iterator[None]:
        if self._memory is None:
            yield
            return
        own, self._memory.bank = self._memory.bank, self._banks[name]
        try:
            yield
        finally:
            self._memory.bank = own

    def _reading(self, condition: Condition, route: Route | None) -> AbstractContextManager[Any]:
        if self._memory is None:
            return nullcontext()
        if condition.reads == "nothing":
            return self._memory.reading(None)
        return self._memory.reading(Reading(entries=self._memory.bank.tokens(route.chosen) if route else None))

    def _route(self, batch: Batch, condition: Condition) -> Route | None:
        """The entries that the router finds or is given; None if there is no router or nothing is read."""
        if self._memory is None or batch.states is None or condition.reads == "nothing":
            return None
        route = find_route(self._memory, batch.states)
        if condition.reads == "found":
            return route
        entries = torch.tensor([question.entry_id for question in batch.questions], device=route.chosen.device)
        right = self._memory.bank.slot_of_entry()[entries][:, None]
        if condition.reads == "given":
            return replace(route, chosen=right)
        is_found = (route.chosen == right).any(dim=1, keepdim=True)
        last = torch.where(is_found, route.chosen[:, -1:], right)
        return replace(route, chosen=torch.cat([route.chosen[:, :-1], last], dim=1))

    def _option_scores(self, batch: Batch, states: PromptStates) -> Tensor:
        """Log-probability of each option's tokens as the answer, [B, options]; -inf for an option that is not there."""
        count = max(len(question.options) for question in batch.questions)
        scores = torch.full((len(batch.questions), count), -torch.inf)
        for index in range(count):
            texts = [
                _answer_text(q, wording, index) for q, wording in zip(batch.questions, batch.wordings, strict=True)
            ]
            encoded = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
            targets, mask = padded_right(encoded, batch.last_tokens.device)
            inputs = torch.cat([batch.last_tokens[:, None], targets[:, :-1]], dim=1)
            with torch.no_grad():
                logprobs = token_logprobs(answer_output(self._model, states, inputs).logits, targets)
            exists = torch.tensor([index < len(question.options) for question in batch.questions])
            scores[exists, index] = (logprobs * mask).sum(dim=1).cpu()[exists]
        return scores

    def _answer(self, question: ChoiceQuestion, name: str, wording: Sequence[Message], token_ids: Sequence[int]) -> Row:
        """The answer, compared with the option that is right in the bank that was read."""
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        is_swapped = CONDITIONS[name].bank == "swapped"
        right = self._objects[question.entry_id] if is_swapped else question.object
        options = [*question.options, right]
        kept = {f"keeps_{key}": value for key, value in compare(text, question.object, options).items()}
        return {
            "question_id": question.question_id,
            "condition": name,
            "relation": question.relation,
            "relation_label": question.relation_label,
            "question": wording[-2]["content"],
            "options": list(question.options),
            "right": right,
            "answer": text,
            **compare(text, right, options),
            **(kept if is_swapped else {}),
            "entry": question.entry_id,
        }

    def _lookups(
        self, batch: Batch, condition: Condition, route: Route | None, written: Sequence[Sequence[int]]
    ) -> Lookups:
        if self._memory is None or condition.reads == "nothing":
            return no_lookups(len(written))
        right = [question.entry_id for question in batch.questions]
        if route:
            return routed_lookups(route, right, self._memory.bank, self._tokenizer)
        room = max(self._settings.num_looked_up - self._num_looked_up, 0)
        self._num_looked_up += len(written)
        return layer_lookups(self._model, batch.prompts, written, right, self._memory.bank, self._tokenizer, room)

    def _count(self, name: str, found: Lookups) -> None:
        if self._memory is not None and found.slots:
            counts = bank_use(found.slots, self._memory.bank).counts
            self.counts[name] = self.counts[name] + counts if name in self.counts else counts


def _answer_text(question: ChoiceQuestion, wording: Sequence[Message], index: int) -> str:
    """An option as the answer would be written; the object if there is no such option."""
    lead = wording[-1]["content"].removesuffix(question.object)
    return lead + (question.options[index] if index < len(question.options) else question.object)
