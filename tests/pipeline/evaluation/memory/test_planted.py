"""A memory made by hand whose router is perfect and whose fusion copies the entry: all measures are known."""

from typing import Any

import pytest
import torch

from pipeline.config import DataConfig
from pipeline.data.omcq import ChoiceQuestion, KnowledgeEntry
from pipeline.evaluation.memory.asking import Asker, Asking, Row
from pipeline.evaluation.memory.conditions import CONDITIONS, chosen_conditions, make_banks, swapped_objects
from pipeline.evaluation.memory.summary import summarize
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.memory.prompts import read_prompts
from pipeline.models.tokenizer import batch_token_ids
from pipeline.types import Problem
from tests.support.memory_models import with_memory
from tests.support.models import tiny_llama, tiny_tokenizer

OBJECTS = ("R", "O", "L")
KNOWLEDGE = [KnowledgeEntry(index, name, f"subject {name}", "P1", name, "[Y]") for index, name in enumerate(OBJECTS)]
"""Entries of one letter, which is the answer."""


def question(entry: KnowledgeEntry) -> ChoiceQuestion:
    asked = {"role": "user", "content": f"Which letter belongs to {entry.subject}?"}
    answer = {"role": "assistant", "content": entry.object}
    return ChoiceQuestion(
        *(f"q{entry.id}", entry.id, entry.subject, "P1", "letter", entry.object, OBJECTS, entry.id),
        *((asked, answer), (asked, answer)),  # type: ignore[arg-type]
    )


QUESTIONS = [question(entry) for entry in KNOWLEDGE]


@torch.no_grad()
def plant_copying(memory: ExplicitMemory) -> None:
    """Add the squares of the entry's positive coordinates, so large that they drown the rest, to the last layer."""
    layer: Any = memory.layers["1"]
    fusion = layer.gated_memory_fusion
    d = memory.embedding.shape[1]
    identity = torch.cat([torch.zeros(d, d), torch.eye(d)], dim=1)  # of [hidden, memory] the memory
    fusion.gate.weight.copy_(100 * identity)
    fusion.up.weight.copy_(identity)
    fusion.down.weight.copy_(1000 * torch.eye(d))


def plant_router(memory: ExplicitMemory, model: object) -> None:
    """Answer each question's query with the slot of its entry."""
    problems = [Problem("-", q.conversations[:-1], "") for q in QUESTIONS]
    states = read_prompts(model, batch_token_ids(tiny_tokenizer(), problems))
    router: Any = memory.router
    with torch.no_grad():
        known = router(states.hidden, states.mask)
    slots = memory.bank.slot_of_entry()

    def find(query: torch.Tensor, bank: object, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = slots[torch.cdist(query, known).argmin(dim=1)]
        return nearest[:, None], nearest[:, None]

    router.find = find


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    model = tiny_llama(tie_word_embeddings=True)
    with torch.no_grad():
        model.get_input_embeddings().weight[tiny_tokenizer().encode(" ")] = 0  # entries begin with a space
    texts = [entry.text for entry in KNOWLEDGE]
    memory = with_memory(model, "routed", texts, layers=[1], decode="mean", num_selected=1, fusion_rank=None)
    plant_copying(memory)
    plant_router(memory, model)
    names = chosen_conditions([], memory)
    objects = swapped_objects(QUESTIONS, 0)
    banks = make_banks(memory, {CONDITIONS[n].bank for n in names}, KNOWLEDGE, objects, tiny_tokenizer(), 0)
    asking = Asking(names, [10**6], DataConfig(system_prompt=""), max_new_tokens=1)
    return Asker(model, tiny_tokenizer(), asking, banks, objects).ask(QUESTIONS)


def test_the_right_bank_is_read_and_a_shuffled_one_misleads(rows):
    found = summarize(rows, QUESTIONS)["conditions"]
    exact = {name: shares["exact"]["value"] for name, shares in found.items()}
    assert exact["memory"] == exact["given"] == exact["unseen"] == 1
    assert exact["shuffled"] == 0  # three entries, each in the place of another


def test_answers_follow_swapped_facts(rows):
    swapped = summarize(rows, QUESTIONS)["conditions"]["swapped"]
    assert swapped["exact"]["value"] == 1 and swapped["keeps_exact"]["value"] == 0


def test_the_perfect_router_has_perfect_recall(rows):
    recall = summarize(rows, QUESTIONS)["conditions"]["memory"]["recall"]
    assert [found["value"] for found in recall.values()] == [1, 1, 1]


def test_the_comparison_with_the_shuffled_bank_says_so(rows):
    comparisons = {c["b"]: c for c in summarize(rows, QUESTIONS)["comparisons"]}
    assert comparisons["shuffled"]["difference"] == -1 and comparisons["given"]["difference"] == 0
