"""Questions under every condition, asked of tiny random models whose memory changes what they write."""

from typing import Any

import pytest
import torch

from pipeline.config import DataConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.memory.asking import Asker, Asking, Row
from pipeline.evaluation.memory.conditions import (
    CONDITIONS,
    chosen_conditions,
    make_banks,
    possible_conditions,
    swapped_objects,
)
from pipeline.evaluation.memory.summary import summarize, use_of_bank
from pipeline.models.memory.attach import memory_of
from pipeline.models.memory.generation import generate
from tests.support.memory_models import with_memory
from tests.support.memory_questions import KNOWLEDGE, QUESTIONS
from tests.support.models import tiny_llama, tiny_tokenizer

TEXTS = [entry.text for entry in KNOWLEDGE]
NO_SYSTEM = DataConfig(system_prompt="")


def asker(model: Any, names: list[str] | None = None, **settings: Any) -> Asker:
    memory = memory_of(model)
    chosen = chosen_conditions(names or [], memory)
    objects = swapped_objects(QUESTIONS, 0)
    banks = (
        make_banks(memory, {CONDITIONS[n].bank for n in chosen}, KNOWLEDGE, objects, tiny_tokenizer(), 0)
        if memory
        else {}
    )
    asking = Asking(chosen, [10**6], NO_SYSTEM, max_new_tokens=4, **settings)
    return Asker(model, tiny_tokenizer(), asking, banks, objects)


def rows_of(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["condition"] == name]


def answers(rows: list[Row], name: str) -> list[str]:
    return [row["answer"] for row in rows_of(rows, name)]


@pytest.fixture(scope="module")
def routed() -> list[Row]:
    model = tiny_llama()
    with_memory(model, "routed", TEXTS, num_candidates=16)
    return asker(model).ask(QUESTIONS)


def test_every_question_has_a_row_for_every_condition_in_their_order(routed):
    memory_conditions = [name for name in CONDITIONS if not name.endswith("model")]
    assert [(row["question_id"], row["condition"]) for row in routed] == [
        (question.question_id, name) for question in QUESTIONS for name in memory_conditions
    ]


def test_without_memory_the_backbone_answers_and_options_are_ranked(routed):
    rows = asker(tiny_llama().eval()).ask(QUESTIONS)
    for name in ("model", "unseen_model"):
        own = {"model": "without", "unseen_model": "unseen_without"}[name]
        assert answers(routed, own) == answers(rows, name)
        assert [row["ranked"] for row in rows_of(routed, own)] == [row["ranked"] for row in rows_of(rows, name)]


def test_ranked_is_the_option_with_the_likeliest_tokens():
    model = tiny_llama().eval()
    (row,) = rows_of(asker(model, ["model"]).ask(QUESTIONS[:1]), "model")
    tokenizer = tiny_tokenizer()
    prompt = tokenizer.apply_chat_template(
        [QUESTIONS[0].conversations[0]], add_generation_prompt=True, return_dict=False
    )
    scores = {}
    for option in QUESTIONS[0].options:
        ids = tokenizer.encode(f" {option}")
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        scores[option] = sum(float(logprobs[len(prompt) - 1 + n, token]) for n, token in enumerate(ids))
    assert row["ranked"] == max(scores, key=scores.__getitem__)


def test_the_router_reads_the_same_entries_in_generation(routed):
    model = tiny_llama()
    memory = with_memory(model, "routed", TEXTS, num_candidates=16)
    tokenizer = tiny_tokenizer()
    prompt = tokenizer.apply_chat_template(
        [QUESTIONS[1].conversations[0]], add_generation_prompt=True, return_dict=False
    )
    (answer,) = generate(model, [prompt], [10**6], 4)
    row = rows_of(routed, "memory")[1]
    assert tokenizer.decode(answer.token_ids) == row["answer"]
    assert answer.route and memory.bank.entry_of_slot[answer.route.chosen].tolist() == row["chosen"]


def test_a_shuffled_bank_has_the_same_candidates_with_the_text_of_other_entries(routed):
    for own, shuffled in zip(rows_of(routed, "memory"), rows_of(routed, "shuffled"), strict=True):
        assert own["candidates"] == shuffled["candidates"]
        assert all(text != TEXTS[entry] for entry, text in zip(shuffled["chosen"], shuffled["read"], strict=True))
        assert all(text == TEXTS[entry] for entry, text in zip(own["chosen"], own["read"], strict=True))


def test_swapped_facts_make_another_option_right(routed):
    for row in rows_of(routed, "swapped"):
        entry = KNOWLEDGE[row["entry"]]
        assert row["right"] in row["options"] and row["right"] != entry.object
        assert all(
            text == KNOWLEDGE[entry].text_with(rows_of(routed, "swapped")[entry]["right"])
            for entry, text in zip(row["chosen"], row["read"], strict=True)
        )
        assert {"keeps_exact", "keeps_startswith", "keeps_contains"} <= row.keys()


def test_the_right_entry_is_given_alone_or_among_others(routed):
    for row in rows_of(routed, "given"):
        assert row["chosen"] == [row["entry"]] and row["read"] == [TEXTS[row["entry"]]]
    for row, found in zip(rows_of(routed, "given_among"), rows_of(routed, "memory"), strict=True):
        is_found = row["entry"] in found["chosen"]
        assert row["chosen"] == (found["chosen"] if is_found else [found["chosen"][0], row["entry"]])


def test_the_bank_is_as_before():
    model = tiny_llama()
    memory = with_memory(model, "routed", TEXTS)
    bank, before = memory.bank, memory.bank.token_ids.clone()
    asker(model).ask(QUESTIONS)
    assert memory.bank is bank and torch.equal(bank.token_ids, before)


def test_batches_do_not_matter():
    model = tiny_llama()
    with_memory(model, "routed", TEXTS)
    whole, single = (asker(model, batch_size=size).ask(QUESTIONS) for size in (32, 1))
    assert whole == single


def test_in_the_token_form_each_layer_and_position_has_its_own_entry():
    model = tiny_llama()
    memory = with_memory(model, "explicitlm", TEXTS)
    own = asker(model, num_looked_up=1)
    rows = own.ask(QUESTIONS)
    first, second = rows_of(rows, "memory")[:2]
    assert list(first["layers"]) == ["0", "1"] and "layers" not in second
    positions = first["layers"]["1"]
    assert [item["token"] for item in positions][1:] == list(first["answer"])[:-1]
    assert all(item["chosen"] in item["candidates"] and len(item["candidates"]) == 4 for item in positions)
    assert {item["chosen"] for layer in first["layers"].values() for item in layer} == set(first["chosen"])
    assert int(own.counts["memory"].sum()) > 0
    assert "given" not in possible_conditions(memory)


def test_a_condition_that_a_model_does_not_have_is_an_error():
    with pytest.raises(ConfigError, match=r"--conditions must be of model, unseen_model for this model, got memory"):
        chosen_conditions(["memory"], None)


def test_the_summary_counts_by_condition_and_relation(routed):
    summary = summarize(routed, QUESTIONS, QUESTIONS[:1])
    assert summary["chance"] == pytest.approx(1 / 3) and summary["num_questions"] == 4
    assert summary["most_frequent_object"] == pytest.approx((1 + 0 + 0 + 1 / 3) / 4)
    found = summary["conditions"]["swapped"]
    assert {relation: shares["exact"]["num"] for relation, shares in found["by_relation"].items()} == {"P1": 3, "P2": 1}
    assert summary["conditions"]["memory"]["recall"]["candidates"]["num"] == 4
    assert [c["b"] for c in summary["comparisons"]] == list(summary["conditions"])[1:]


def test_the_use_of_the_bank_is_counted_by_condition():
    model = tiny_llama()
    with_memory(model, "routed", TEXTS)
    own = asker(model, ["memory", "without"])
    rows = own.ask(QUESTIONS)
    chosen = [entry for row in rows_of(rows, "memory") for entry in row["chosen"] if entry >= 0]
    use = use_of_bank(own.counts)
    assert use.keys() == {"memory"}
    assert use["memory"]["bank/coverage"] == len(set(chosen)) / 4
    assert use["memory"]["hottest"][0][1] == max(map(chosen.count, chosen))
