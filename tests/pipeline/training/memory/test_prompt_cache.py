import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pipeline.models.memory.prompts import PromptStates, read_prompts
from pipeline.training.memory import prompt_cache
from pipeline.training.memory.prompt_cache import PromptCache, bytes_per_token
from tests.support.memories import memory_config, with_memory
from tests.support.models import tiny_llama
from tests.support.sequences import sequence

PROMPTS = [sequence(2 + index % 9, 0, index).prompt for index in range(11)]


@pytest.fixture(scope="module")
def model() -> Any:
    model = tiny_llama().eval()
    with_memory(model, memory_config("routed"))
    return model


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Numbers of prompts that were read together, in chunks of 4."""
    counts: list[int] = []

    def counted(model: Any, prompts: Sequence[Sequence[int]], **arguments: Any) -> PromptStates:
        counts.append(len(prompts))
        return read_prompts(model, prompts, **arguments)

    monkeypatch.setattr(prompt_cache, "read_prompts", counted)
    monkeypatch.setattr(prompt_cache, "CHUNK", 4)
    return counts


def cache(model: Any, limit_gib: float, *, with_kv: bool = True) -> PromptCache:
    return PromptCache(model, PROMPTS.__getitem__, list(map(len, PROMPTS)), limit_gib, with_kv=with_kv)


def assert_close(first: PromptStates, second: PromptStates, tolerance: float) -> None:
    assert first.lengths.tolist() == second.lengths.tolist()
    for row, length in enumerate(first.lengths.tolist()):
        for left, right in (
            (first.hidden[row, :length], second.hidden[row, :length]),
            (first.cache[:, :, row, :, :length], second.cache[:, :, row, :, :length]),
        ):
            torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("with_kv", [True, False])
def test_kept_states_are_those_that_are_computed_in_every_step(model, reads, with_kv):
    indices = [9, 0, 10, 3]
    kept, computed = (cache(model, limit, with_kv=with_kv).states(indices) for limit in (1.0, 0.0))
    assert kept.lengths.tolist() == [len(PROMPTS[index]) - 1 for index in indices]
    assert_close(kept, computed, 1e-4)


def test_states_do_not_depend_on_the_step_that_asks_first(model, reads):
    forwards, backwards = cache(model, 1.0), cache(model, 1.0)
    batches = [[0, 5], [9, 1], [3, 10], [2, 4]]
    first = [forwards.states(batch) for batch in batches]
    second = [backwards.states(batch) for batch in reversed(batches)][::-1]
    for left, right in zip(first, second, strict=True):
        assert_close(left, right, 0.0)


def test_prompts_are_read_once(model, reads):
    kept = cache(model, 1.0)
    for batch in ([0, 5], [9, 1], [8, 10], [0, 1]):
        kept.states(batch)
    assert reads == [4, 4, 3]


def test_states_are_kept_only_if_all_of_them_fit(model, reads, caplog):
    """A token has 64 numbers of hidden states, and keys and values of 32 in both layers: 192 of 4 bytes."""
    needed_gib = sum(map(len, PROMPTS)) * (64 + 2 * 2 * 32) * 4 / 2**30
    with caplog.at_level(logging.INFO):
        small = cache(model, 0.99 * needed_gib)
    assert "computed in every step, see memory.prompt_cache_gib" in caplog.text
    small.states([0, 9])
    small.states([0, 9])
    assert reads == [2, 2]
    cache(model, 1.01 * needed_gib).states([0, 9])
    assert reads == [2, 2, 4, 3]


def test_hidden_states_alone_need_less_room(model):
    assert [bytes_per_token(model, with_kv=with_kv) for with_kv in (True, False)] == [768, 256]
