"""Generation with an explicit memory, in batches and with a cache of keys and values.

A memory with a pooled query leaves the prompt's states alone: they are computed once, the router looks for entries, and
every layer reads them from the prompt's last token on. With a query for each token, all positions read.

Shapes: B prompts of different lengths; C candidates; M chosen entries of L tokens; V tokens of the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.memory.attach import memory_of
from pipeline.models.memory.bank import KnowledgeBank
from pipeline.models.memory.memory import ExplicitMemory, Reading, Selection
from pipeline.models.memory.prompts import (
    PromptStates,
    answer_output,
    continued_output,
    padded_right,
    read_prompts,
    stacked_cache,
)

Pick = Callable[[Tensor], Tensor]
"""Chooses tokens [B] by their logits [B, V]."""


def likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


def drawn(logits: Tensor, temperature: float) -> Tensor:
    """A token drawn from the distribution at a temperature above 0."""
    return torch.multinomial((logits.float() / temperature).softmax(dim=-1), 1)[:, 0]


@dataclass(frozen=True)
class Route:
    """Entries that the pooled router found for prompts."""

    candidates: Tensor
    """[B, C] slots, in the order of the product keys."""
    similarities: Tensor
    """[B, C]: cosine of query and entry in the knowledge space."""
    chosen: Tensor
    """[B, M] slots, best first."""


@dataclass(frozen=True)
class Answer:
    """The completion of one prompt."""

    token_ids: tuple[int, ...]
    """With the token that ends it, if it ended."""
    route: Route | None
    """Of this prompt alone; None without a pooled query."""


@torch.no_grad()
def find_route(memory: ExplicitMemory, states: PromptStates, bank: KnowledgeBank | None = None) -> Route:
    """Look for entries.

    Args:
        bank: another one than the memory's own.
    """
    router, bank = memory.router, bank or memory.bank
    assert router is not None
    query = router(states.hidden, states.mask)
    candidates, chosen = router.find(query, bank)
    return Route(candidates, F.cosine_similarity(query[:, None], bank.vectors(candidates), dim=-1), chosen)


@torch.no_grad()
def read_whole_prompts(model: Any, prompts: Sequence[Sequence[int]]) -> PromptStates:
    """The states of prompts of two tokens at least, whose positions read the memory if the caller lets them. The hidden
    states are those after the last layer."""
    device = model.get_input_embeddings().weight.device
    input_ids, mask = padded_right([prompt[:-1] for prompt in prompts], device)
    output = model.get_decoder()(input_ids=input_ids, attention_mask=mask.long(), use_cache=True)
    return PromptStates(stacked_cache(output), output.last_hidden_state, mask)


@torch.no_grad()
def steps(
    model: Any, states: PromptStates, last_tokens: Tensor, pick: Pick = likeliest
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [B, V] and the tokens [B] that are picked by them, one position after another."""
    output = answer_output(model, states, last_tokens[:, None])
    for num_inputs in count(1):
        logits = output.logits[:, -1]
        tokens = pick(logits)
        yield logits, tokens
        output = continued_output(model, output.past_key_values, states, num_inputs, tokens[:, None])


def write_answers(
    model: Any,
    states: PromptStates,
    last_tokens: Tensor,
    end_ids: Sequence[int],
    max_new_tokens: int,
    pick: Pick = likeliest,
) -> list[tuple[int, ...]]:
    """Token ids of the answers, each up to its first end token. The memory is read as the caller lets it be.

    Args:
        last_tokens: [B], those of the prompts, which are not part of the states.
    """
    ends = torch.tensor(list(end_ids), device=last_tokens.device)
    has_ended = torch.zeros_like(last_tokens, dtype=torch.bool)
    written: list[Tensor] = []
    for _, tokens in islice(steps(model, states, last_tokens, pick), max_new_tokens):
        written.append(tokens)
        has_ended |= torch.isin(tokens, ends)
        if has_ended.all():
            break
    return [_up_to_end(row, set(end_ids)) for row in torch.stack(written, dim=1).tolist()]


def _up_to_end(token_ids: list[int], end_ids: set[int]) -> tuple[int, ...]:
    length = next((place for place, token in enumerate(token_ids, 1) if token in end_ids), len(token_ids))
    return tuple(token_ids[:length])


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end_ids: Sequence[int],
    max_new_tokens: int,
    pick: Pick = likeliest,
) -> list[Answer]:
    """Answers of a model to prompts, with its memory if it has one."""
    memory = memory_of(model)
    last_tokens = torch.tensor([prompt[-1] for prompt in prompts], device=model.get_input_embeddings().weight.device)
    if memory is None or memory.router is None:
        with memory.reading(Reading()) if memory else nullcontext():
            states = read_whole_prompts(model, prompts)
            written = write_answers(model, states, last_tokens, end_ids, max_new_tokens, pick)
        return [Answer(token_ids, None) for token_ids in written]
    states = read_prompts(model, prompts)
    route = find_route(memory, states)
    with memory.reading(Reading(entries=memory.bank.tokens(route.chosen))):
        written = write_answers(model, states, last_tokens, end_ids, max_new_tokens, pick)
    rows = (Route(*parts) for parts in zip(route.candidates, route.similarities, route.chosen, strict=True))
    return [Answer(token_ids, row) for token_ids, row in zip(written, rows, strict=True)]


@torch.no_grad()
def read_selections(model: Any, sequences: Sequence[Sequence[int]]) -> tuple[dict[int, Selection], Tensor]:
    """The selection of each layer at each position of prompts with their answers, and the mask of positions, [B, T]."""
    memory = memory_of(model)
    assert memory is not None
    input_ids, mask = padded_right(sequences, memory.embedding.device)
    with memory.reading(Reading()) as reading:
        model.get_decoder()(input_ids=input_ids, attention_mask=mask.long(), use_cache=False)
    assert reading is not None
    return reading.selections, mask
