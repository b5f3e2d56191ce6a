from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.models.memory.attach import set_trainable
from pipeline.models.memory.bank import PADDING
from pipeline.models.memory.memory import Reading
from pipeline.models.memory.prompts import read_prompts
from pipeline.training.batching import micro_batches
from pipeline.training.memory.fusion import FusionLosses, given_form_losses, pad_entries, token_form_losses
from pipeline.training.sft import token_losses
from tests.support.memories import memory_config, random_entries, set_random_weights, with_memory
from tests.support.models import tiny_llama
from tests.support.sequences import CPU, SEQUENCES, sequence

SEEDS = [101, 102, 103, 104, 105, 106]
PARTS = ["memory_gate", "gated_memory_fusion", "memory_norm"]


def with_trained_memory(preset: str, **settings: Any) -> Any:
    model = tiny_llama().train()
    memory = with_memory(model, memory_config(preset, **settings))
    set_random_weights(memory.layers)
    set_trainable(memory, PARTS, router=False)
    return model


def searched(model: Any, max_tokens: int) -> tuple[FusionLosses, dict[str, Tensor]]:
    """Sums over all sequences in micro-batches, and the gradients of a loss of all of them."""
    parts = []
    for batch in micro_batches(SEQUENCES, max_tokens, CPU):
        lengths, seeds = [len(SEQUENCES[row]) for row in batch.rows], [SEEDS[row] for row in batch.rows]
        part = token_form_losses(model, batch, lengths, seeds, torch.float32)
        (part.loss - 0.1 * part.similarity + 0.05 * part.diversity).backward()
        parts.append([value.detach() for value in vars(part).values()])
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return FusionLosses(*(torch.stack(column).sum() for column in zip(*parts, strict=True))), gradients


def test_an_untrained_memory_has_the_loss_of_plain_sft():
    model = tiny_llama().train()
    (batch,) = micro_batches(SEQUENCES, 1000, CPU)
    with torch.no_grad():
        losses, hits = token_losses(model, batch, torch.float32)
    with_memory(model, memory_config())
    found = token_form_losses(model, batch, [len(SEQUENCES[row]) for row in batch.rows], SEEDS, torch.float32)
    assert torch.equal(found.loss, losses.sum()) and found.num_hits == hits.sum()


def test_the_split_into_micro_batches_changes_nothing():
    """Neither losses nor gradients: noise is that of an example and a position, and padding does not count."""
    whole, gradients = searched(with_trained_memory("explicitlm"), 1000)
    for max_tokens in (30, 1):
        split, split_gradients = searched(with_trained_memory("explicitlm"), max_tokens)
        for name, value in vars(whole).items():
            assert getattr(split, name).item() == pytest.approx(value.item(), rel=1e-4, abs=1e-3), name
        assert split_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(split_gradients[name], gradient, rtol=1e-3, atol=1e-3)


def test_auxiliary_losses_are_means_over_layers_and_sums_over_real_positions():
    model = with_trained_memory("explicitlm")
    memory, example = model.explicit_memory, SEQUENCES[0]
    (batch,) = micro_batches([example], 100, CPU, pad_to_multiple_of=16)
    found = token_form_losses(model, batch, [7], SEEDS[:1], torch.float32)
    reading = Reading(seeds=torch.tensor(SEEDS[:1]))
    with memory.reading(reading), torch.no_grad():
        model(input_ids=torch.tensor([[*example.prompt, *example.completion]]))
    for name in ("similarity", "diversity"):
        layers = [getattr(reading.selections[layer], name) for layer in (0, 1)]
        expected = (layers[0].sum() + layers[1].sum()) / 2
        assert getattr(found, name).item() == pytest.approx(expected.item(), rel=1e-4)


PROMPTS = [sequence(5, 0).prompt, sequence(3, 0).prompt]
COMPLETIONS = [(90, 2, 7), (11,)]


@pytest.mark.parametrize("num_selected", [1, 3])
def test_given_entries_are_read_from_the_last_token_of_the_prompt_on(num_selected):
    """The cross-entropy of each completion after a whole forward pass in which only these positions read."""
    model = with_trained_memory("routed", num_selected=num_selected)
    memory, entries = model.explicit_memory, random_entries(2 * num_selected, seed=3).view(2, num_selected, -1)
    states = read_prompts(model, PROMPTS)
    last = [prompt[-1] for prompt in PROMPTS]
    found = given_form_losses(model, states, last, COMPLETIONS, entries, torch.float32)
    loss = hits = 0.0
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        tokens = torch.tensor([prompt + completion])
        reads = torch.arange(tokens.shape[1])[None] >= len(prompt) - 1
        with memory.reading(Reading(positions=reads, entries=entries[row : row + 1])), torch.no_grad():
            logits = model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
        loss += torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="sum").item()
        hits += (logits.argmax(dim=-1) == torch.tensor(completion)).sum().item()
    assert found.loss.item() == pytest.approx(loss, rel=1e-4)
    assert found.num_hits == hits
    assert found.similarity == found.diversity == 0


def test_examples_of_a_given_batch_do_not_see_each_other():
    model, entries = with_trained_memory("routed"), random_entries(2, seed=3)[:, None]

    def loss(rows: slice) -> float:
        states, last = read_prompts(model, PROMPTS[rows]), [prompt[-1] for prompt in PROMPTS[rows]]
        return given_form_losses(model, states, last, COMPLETIONS[rows], entries[rows], torch.float32).loss.item()

    assert loss(slice(0, 2)) == pytest.approx(loss(slice(0, 1)) + loss(slice(1, 2)), rel=1e-4)


def test_short_entries_are_padded():
    rows = pad_entries([[1, 2, 3], [4]], 4)
    assert rows.tolist() == [[1, 2, 3, PADDING], [4, PADDING, PADDING, PADDING]]
    assert rows.dtype == torch.int32
