"""Generation with a memory: the cache, batches and what the answers are made from."""

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.models.memory.generation import (
    Route,
    find_route,
    generate,
    read_selections,
    read_whole_prompts,
    steps,
    write_answers,
)
from pipeline.models.memory.memory import ExplicitMemory, Reading
from pipeline.models.memory.prompts import read_prompts
from tests.support.memory_models import tiny_qwen3, with_memory
from tests.support.models import tiny_llama, tiny_tokenizer

PROMPTS = [tiny_tokenizer().encode(text) for text in ("Where is Bo?", "In which city does Cleo live?", "Abu")]
BACKBONES = [tiny_llama, tiny_qwen3]
NO_END = [10**6]
LENGTH = 6


def without_cache(
    model: Any, memory: ExplicitMemory, prompt: list[int], route: Route | None
) -> tuple[list[int], Tensor]:
    """Tokens and their logits by a forward pass over the whole sequence for each."""
    tokens, logits = list(prompt), []
    for _ in range(LENGTH):
        reading = Reading()
        if route:
            reading.positions = (torch.arange(len(tokens)) >= len(prompt) - 1)[None]
            reading.entries = memory.bank.tokens(route.chosen)[None]
        with torch.no_grad(), memory.reading(reading):
            output = model(input_ids=torch.tensor([tokens]), use_cache=False)
        logits.append(output.logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
    return tokens[len(prompt) :], torch.stack(logits)


@pytest.mark.parametrize("preset", ["routed", "explicitlm"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_with_a_cache_writes_what_each_prompt_gets_without_one(backbone, preset):
    model = backbone()
    memory = with_memory(model, preset)
    answers = generate(model, PROMPTS, NO_END, LENGTH)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected, _ = without_cache(model, memory, prompt, answer.route)
        assert list(answer.token_ids) == expected


@pytest.mark.parametrize("backbone", BACKBONES)
def test_logits_with_a_cache_are_those_without_one(backbone):
    for preset in ("routed", "explicitlm"):
        model = backbone()
        memory = with_memory(model, preset)
        is_routed = preset == "routed"
        last = torch.tensor([prompt[-1] for prompt in PROMPTS])
        route = find_route(memory, read_prompts(model, PROMPTS)) if is_routed else None
        with memory.reading(Reading(entries=memory.bank.tokens(route.chosen) if route else None)):
            states = None if is_routed else read_whole_prompts(model, PROMPTS)
            found = list(islice(steps(model, states or read_prompts(model, PROMPTS), last), LENGTH))
        for row, prompt in enumerate(PROMPTS):
            own = Route(route.candidates[row], route.similarities[row], route.chosen[row]) if route else None
            _, expected = without_cache(model, memory, prompt, own)
            torch.testing.assert_close(
                torch.stack([logits[row] for logits, _ in found]), expected, rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("preset", ["routed", "explicitlm"])
def test_one_by_one_is_as_in_a_batch(preset):
    model = tiny_llama()
    with_memory(model, preset)
    together = generate(model, PROMPTS, NO_END, LENGTH)
    alone = [generate(model, [prompt], NO_END, LENGTH)[0] for prompt in PROMPTS]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]


@pytest.mark.parametrize("preset", ["routed", "explicitlm"])
def test_the_memory_changes_what_is_written(preset):
    model = tiny_llama()
    plain = [answer.token_ids for answer in generate(model, PROMPTS, NO_END, LENGTH)]
    with_memory(model, preset)
    assert [answer.token_ids for answer in generate(model, PROMPTS, NO_END, LENGTH)] != plain


def test_an_answer_ends_with_its_first_end_token_and_at_the_latest_after_max_new_tokens():
    model = tiny_llama().eval()
    (whole,) = generate(model, PROMPTS[:1], NO_END, LENGTH)
    third = whole.token_ids[2]
    (ended,) = generate(model, PROMPTS[:1], [third], LENGTH)
    assert len(whole.token_ids) == LENGTH
    assert ended.token_ids == whole.token_ids[: whole.token_ids.index(third) + 1]


def test_candidates_come_with_their_cosines_and_the_chosen_are_the_most_similar():
    model = tiny_llama()
    memory = with_memory(model, "routed", num_candidates=9)
    route = find_route(memory, read_prompts(model, PROMPTS))
    is_filled = memory.bank.entry_of_slot[route.candidates] >= 0
    for row in range(len(PROMPTS)):
        ranked = route.similarities[row].masked_fill(~is_filled[row], -2).argsort(descending=True)
        assert route.candidates[row, ranked[:2]].tolist() == route.chosen[row].tolist()


def test_selections_are_those_of_every_layer_and_position():
    model = tiny_llama()
    memory = with_memory(model, "explicitlm")
    found, mask = read_selections(model, PROMPTS)
    assert list(found) == [0, 1] and mask.sum(dim=1).tolist() == [len(prompt) for prompt in PROMPTS]
    alone = Reading()
    with memory.reading(alone):
        model(input_ids=torch.tensor([PROMPTS[2]]))
    for layer, selection in found.items():
        assert selection.chosen[2, : len(PROMPTS[2])].tolist() == alone.selections[layer].chosen[0].tolist()


def test_without_a_reading_the_backbone_writes_alone():
    model = tiny_llama().eval()
    plain = [answer.token_ids for answer in generate(model, PROMPTS, NO_END, LENGTH)]
    with_memory(model, "routed")
    last = torch.tensor([prompt[-1] for prompt in PROMPTS])
    assert write_answers(model, read_prompts(model, PROMPTS), last, NO_END, LENGTH) == plain
