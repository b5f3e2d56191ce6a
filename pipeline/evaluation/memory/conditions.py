"""Conditions under which questions are asked: which bank there is, and what the model may read of it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import torch
from torch import Tensor

from pipeline.data.omcq import ChoiceQuestion, KnowledgeEntry
from pipeline.errors import ConfigError
from pipeline.models.memory.bank import KnowledgeBank
from pipeline.models.memory.entries import entry_token_ids
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.tokenizer import Tokenizer
from pipeline.seeds import derive_seed

BankName = Literal["own", "shuffled", "swapped"]


@dataclass(frozen=True)
class Condition:
    """How a model is asked."""

    reads: Literal["nothing", "found", "given", "given_among"]
    """``found``: what it finds by itself. ``given``: the entry that the question is about. ``given_among``: that entry
    among those that the router finds."""
    bank: BankName = "own"
    is_unseen: bool = False
    """Ask in a wording that no question is trained in."""


CONDITIONS = {
    "memory": Condition("found"),
    "without": Condition("nothing"),
    "shuffled": Condition("found", "shuffled"),
    "swapped": Condition("found", "swapped"),
    "given": Condition("given"),
    "given_among": Condition("given_among"),
    "unseen": Condition("found", is_unseen=True),
    "unseen_without": Condition("nothing", is_unseen=True),
    "model": Condition("nothing"),
    "unseen_model": Condition("nothing", is_unseen=True),
}
"""``model`` and ``unseen_model`` are those of a model without memory."""


def possible_conditions(memory: ExplicitMemory | None, *, objects: bool = True) -> list[str]:
    """The conditions under which a model can be asked.

    Args:
        objects: whether the entries have objects. Bare sentences can be neither rewritten nor compared with questions.
    """
    if memory is None:
        return ["model", "unseen_model"]
    impossible: tuple[str, ...] = () if memory.router and objects else ("given", "given_among")
    impossible += () if objects else ("swapped",)
    return [name for name in CONDITIONS if not name.endswith("model") and name not in impossible]


def chosen_conditions(names: Sequence[str], memory: ExplicitMemory | None, *, objects: bool = True) -> list[str]:
    """The names in order, or all that are possible. Raises ConfigError for one that is not."""
    possible = possible_conditions(memory, objects=objects)
    if wrong := [name for name in names if name not in possible]:
        bare = "" if objects or memory is None else " whose knowledge is sentences without objects"
        raise ConfigError(f"--conditions must be of {', '.join(possible)} for this model{bare}, got {wrong[0]}.")
    return [name for name in possible if name in names or not names]


def swapped_objects(questions: Sequence[ChoiceQuestion], seed: int) -> dict[int, str]:
    """Entry -> the object that is written into it: another option of the first question about it."""
    objects: dict[int, str] = {}
    for question in questions:
        others = [option for option in question.options if option != question.object]
        draw = Random(derive_seed(seed, "swap", question.question_id))
        objects.setdefault(question.entry_id, draw.choice(others))
    return objects


def make_banks(
    memory: ExplicitMemory,
    names: set[BankName],
    knowledge: Sequence[KnowledgeEntry],
    objects: Mapping[int, str],
    tokenizer: Tokenizer,
    seed: int,
) -> dict[BankName, KnowledgeBank]:
    """The memory's own bank and altered copies of it: the slots, and so the keys, are the same.

    Args:
        objects: of ``swapped``, by entry.
    """
    banks: dict[BankName, KnowledgeBank] = {"own": memory.bank}
    if "shuffled" in names:
        banks["shuffled"] = _with_entries(memory, memory.bank.token_ids[_derangement(memory.bank.num_entries, seed)])
    if "swapped" in names:
        texts = [knowledge[entry].text_with(object) for entry, object in objects.items()]
        new, _ = entry_token_ids(tokenizer, texts, memory.config.knowledge_length)
        token_ids = memory.bank.token_ids[:-1].clone()
        token_ids[list(objects)] = new.to(token_ids)
        banks["swapped"] = _with_entries(memory, token_ids)
    return banks


def _derangement(count: int, seed: int) -> Tensor:
    """A random cycle: no entry stays where it is."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(seed, "shuffled bank")))
    places = torch.empty_like(order)
    places[order] = order.roll(1)
    return places


def _with_entries(memory: ExplicitMemory, token_ids: Tensor) -> KnowledgeBank:
    bank = copy.deepcopy(memory.bank)
    bank.set_entries(token_ids, memory.embedding)
    return bank
