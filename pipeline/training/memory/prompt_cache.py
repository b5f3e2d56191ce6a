"""Prompt states of a stage's examples, computed once if they fit into memory."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.models.memory.prompts import PromptStates, join, read_prompts

logger = logging.getLogger(__name__)
CHUNK = 32
"""Prompts that are computed together. Chunks are fixed: a prompt's states do not depend on the step that asks first."""


class PromptCache:
    """States of prompts by index, kept in memory as far as a limit allows.

    Args:
        prompt: token ids of a prompt by its index.
        count: number of prompts.
        limit_gib: 0: nothing is kept.
        keys: keep keys and values too, not hidden states alone.
    """

    def __init__(
        self, model: Any, prompt: Callable[[int], Sequence[int]], count: int, limit_gib: float, *, keys: bool
    ) -> None:
        self._model, self._prompt, self._count, self._keys = model, prompt, count, keys
        self._limit, self._kept = limit_gib * 2**30, limit_gib > 0
        self._chunks: dict[int, list[PromptStates]] = {}

    def states(self, indices: Sequence[int]) -> PromptStates:
        """The states of these prompts, as one batch."""
        if not self._kept:
            return self._read([self._prompt(index) for index in indices])
        return join([self._chunk(index // CHUNK)[index % CHUNK] for index in indices])

    def _chunk(self, number: int) -> list[PromptStates]:
        if number not in self._chunks:
            rows = range(number * CHUNK, min((number + 1) * CHUNK, self._count))
            states = self._read([self._prompt(row) for row in rows])
            self._chunks[number] = [states[row : row + 1].clone() for row in range(len(rows))]
            if len(self._chunks) == 1:
                self._check_room(sum(state.num_bytes for state in self._chunks[number]) / len(rows))
        return self._chunks[number]

    def _check_room(self, bytes_each: float) -> None:
        """Keep nothing from now on if all prompts would not fit: decided by the first chunk."""
        needed = bytes_each * self._count
        self._kept = needed <= self._limit
        text = "states of %d prompts need about %.1f GiB: %s"
        verdict = "kept in memory" if self._kept else "computed in every step, see memory.prompt_cache_gib"
        logger.info(text, self._count, needed / 2**30, verdict)

    def _read(self, prompts: Sequence[Sequence[int]]) -> PromptStates:
        return read_prompts(self._model, prompts, keys=self._keys)
