from typing import Any

import pytest
import torch

from pipeline.models.memory.memory import Reading
from pipeline.models.memory.prompts import (
    PromptStates,
    answer_output,
    continued_output,
    decoder_of_layers,
    join,
    read_prompts,
)
from tests.support.memories import BACKBONES, memory_config, random_entries, set_random_weights, with_memory

PROMPTS = [(5, 17, 200, 31, 8), (3, 9, 9), (40, 41, 42, 43, 44, 45, 46)]
ANSWERS = [(90, 2, 7), (1, 2, 3), (11, 12, 13)]


@pytest.fixture(scope="module", params=BACKBONES)
def model(request) -> Any:
    """A backbone with a trained memory."""
    backbone = BACKBONES[request.param]().eval()
    set_random_weights(with_memory(backbone, memory_config("routed")).layers)
    return backbone


def inputs() -> torch.Tensor:
    """From each prompt's last token on."""
    return torch.tensor([(prompt[-1], *answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)])


@torch.no_grad()
def whole_logits(model: Any, row: int) -> torch.Tensor:
    """Logits of one prompt and its answer in one pass, without memory, from the prompt's last token on."""
    logits = model(input_ids=torch.tensor([PROMPTS[row] + ANSWERS[row]])).logits
    return logits[0, len(PROMPTS[row]) - 1 :]


@torch.no_grad()
def test_answers_over_cached_prompts_are_those_of_a_whole_pass(model):
    logits = answer_output(model, read_prompts(model, PROMPTS), inputs()).logits
    for row in range(3):
        torch.testing.assert_close(logits[row], whole_logits(model, row), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_memory_is_read_from_the_last_token_on(model):
    """The same as a whole pass in which only these positions read it."""
    memory, entries = model.explicit_memory, random_entries(3, seed=4)[:, None]
    states = read_prompts(model, PROMPTS)
    with memory.reading(Reading(entries=entries)):
        logits = answer_output(model, states, inputs()).logits
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        reads = torch.arange(len(prompt) + len(answer))[None] >= len(prompt) - 1
        with memory.reading(Reading(positions=reads, entries=entries[row : row + 1])):
            expected = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 :]
        torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(expected, whole_logits(model, row), atol=1e-2)


@torch.no_grad()
def test_token_after_token_gives_the_same(model):
    states, tokens = read_prompts(model, PROMPTS), inputs()
    expected = answer_output(model, states, tokens).logits
    output = answer_output(model, states, tokens[:, :1])
    found = [output.logits]
    for position in range(1, 4):
        output = continued_output(model, output.past_key_values, states, position, tokens[:, position : position + 1])
        found.append(output.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("query_layer", [0, 1, 2])
@pytest.mark.parametrize("keys", [True, False])
def test_the_hidden_states_are_those_after_the_layer_of_the_query(model, query_layer, keys, monkeypatch):
    memory = model.explicit_memory
    monkeypatch.setattr(memory, "config", memory.config.model_copy(update={"query_layer": query_layer}))
    states = read_prompts(model, PROMPTS, with_kv=keys)
    assert len(states.cache) == (2 if keys else 0)
    found: list[torch.Tensor] = []
    place = model.model.layers[query_layer - 1] if query_layer else model.model.embed_tokens
    for row, prompt in enumerate(PROMPTS):
        hook = place.register_forward_hook(lambda module, arguments, output: found.append(output))
        hidden_states = model.model(input_ids=torch.tensor([prompt[:-1]]), output_hidden_states=True).hidden_states
        hook.remove()
        torch.testing.assert_close(states.hidden[row, : len(prompt) - 1], found[-1][0], rtol=1e-4, atol=1e-4)
        if query_layer < 2:  # the library normalizes the last ones
            torch.testing.assert_close(found[-1], hidden_states[query_layer])
    assert states.lengths.tolist() == [len(prompt) - 1 for prompt in PROMPTS]


def test_the_decoder_is_whole_again_after_an_error(model):
    decoder = model.get_decoder()
    with pytest.raises(ZeroDivisionError), decoder_of_layers(decoder, 1):
        assert len(decoder.layers) == 1
        raise ZeroDivisionError
    assert len(decoder.layers) == 2


@pytest.fixture(scope="module")
def states(model) -> PromptStates:
    return read_prompts(model, PROMPTS)


def test_a_slice_has_no_padding_that_it_does_not_need(states):
    part = states[0:2]
    assert part.lengths.tolist() == [4, 2]
    assert part.mask.shape == (2, 4) and part.hidden.shape == (2, 4, 64)
    assert part.cache.shape[2] == 2 and part.cache.shape[4] == 4
    assert torch.equal(part.hidden, states.hidden[:2, :4])


def test_joined_slices_are_the_whole_batch_again(states):
    parts = [states[row : row + 1].clone() for row in (2, 0, 1)]
    joined = join(parts)
    assert joined.lengths.tolist() == [6, 4, 2]
    for row, part in enumerate(parts):
        length = part.mask.shape[1]
        assert torch.equal(joined.hidden[row, :length], part.hidden[0])
        assert torch.equal(joined.cache[:, :, row, :, :length], part.cache[:, :, 0])
        assert not joined.hidden[row, length:].any() and not joined.mask[row, length:].any()


@torch.no_grad()
def test_answers_over_joined_states_are_the_same(model, states):
    expected = answer_output(model, states, inputs()).logits
    joined = join([states[row : row + 1] for row in range(3)])
    torch.testing.assert_close(answer_output(model, joined, inputs()).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_copy_does_not_hold_the_batch(states):
    part = states[1:2]
    assert part.clone().hidden.untyped_storage().nbytes() == 2 * 64 * 4
    assert part.num_bytes == part.clone().num_bytes == states.cache.shape[0] * 2 * 2 * 32 * 4 + 2 * 64 * 4 + 2
