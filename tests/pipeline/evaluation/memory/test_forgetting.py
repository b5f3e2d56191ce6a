"""Perplexity of texts with and without a memory."""

from math import exp
from types import SimpleNamespace

import pytest
import torch

from pipeline.config import DataConfig
from pipeline.errors import DataError
from pipeline.evaluation.memory import forgetting
from pipeline.evaluation.memory.forgetting import text_perplexity
from pipeline.evaluation.memory.loading import Evaluated
from pipeline.models.memory.generation import find_route
from pipeline.models.memory.memory import Reading
from pipeline.models.memory.prompts import read_prompts
from pipeline.training.batching import TokenSequence
from tests.support.memory_models import with_memory
from tests.support.models import tiny_llama, tiny_tokenizer

SEQUENCES = [
    TokenSequence(*(tuple(tiny_tokenizer().encode(text)) for text in pair))
    for pair in (("What is 1 + 1?", " It is 2."), ("Name a prime.", " 7"), ("2 * 3?", " Twice 3 is 6, so 6."))
]
NUM_TOKENS = sum(len(sequence.completion) for sequence in SEQUENCES)


def reference(model, memory, read: bool) -> float:
    """The perplexity, one text at a time."""
    loss = 0.0
    for sequence in SEQUENCES:
        ids = torch.tensor([[*sequence.prompt, *sequence.completion]])
        reading = Reading() if read else None
        if read and memory.router:
            route = find_route(memory, read_prompts(model, [sequence.prompt]))
            places = (torch.arange(ids.shape[1]) >= len(sequence.prompt) - 1)[None]
            reading = Reading(positions=places, entries=memory.bank.tokens(route.chosen))
        with torch.no_grad(), memory.reading(reading):
            logprobs = model(ids).logits[0].log_softmax(dim=-1)
        targets = ids[0, len(sequence.prompt) :]
        loss -= float(logprobs[len(sequence.prompt) - 1 : -1].gather(1, targets[:, None]).sum())
    return exp(loss / NUM_TOKENS)


@pytest.mark.parametrize("preset", ["routed", "explicitlm"])
def test_perplexity_is_that_of_one_text_after_another(preset):
    model = tiny_llama()
    memory = with_memory(model, preset)
    found = text_perplexity(model, memory, SEQUENCES)
    assert found["without"]["num_tokens"] == found["with"]["num_tokens"] == NUM_TOKENS
    assert found["without"]["perplexity"] == pytest.approx(reference(model, memory, False), rel=1e-4)
    assert found["with"]["perplexity"] == pytest.approx(reference(model, memory, True), rel=1e-4)
    assert found["with"]["perplexity"] != pytest.approx(found["without"]["perplexity"], rel=1e-3)


def test_a_model_without_memory_has_one_perplexity():
    found = text_perplexity(tiny_llama().eval(), None, SEQUENCES)
    assert found.keys() == {"without"} and found["without"]["perplexity"] > 1


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ([SimpleNamespace(asked="1 + 1?", solution="It is 2.")], "must have a text of at most 5 tokens, got none of 1"),
        ([], "must have worked solutions, got none"),
    ],
)
def test_a_data_set_without_a_usable_text_is_named(monkeypatch, problems, message):
    monkeypatch.setattr(forgetting, "load_data_set", lambda *_: SimpleNamespace(problems=problems))
    evaluated = Evaluated("m", tiny_llama().eval(), tiny_tokenizer(), (), DataConfig())
    with pytest.raises(DataError, match=f"--texts gsm8k {message}"):
        forgetting.forgetting(evaluated, ["gsm8k"], None, max_texts=5, seed=0, max_tokens=5)
