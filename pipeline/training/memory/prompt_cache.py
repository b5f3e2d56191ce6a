"""Prompt states of a stage's examples, computed once if they fit into memory."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.models.memory.prompts import PromptStates, join, read_prompts

logger = logging.getLogger(__name__)
CHUNK = 32
"""Prompts that are computed together. Chunks are fixed: a prompt's states do not depend on the step that asks first."""


class PromptCache:
    """States of prompts by index. They are kept if all of them fit into memory, which is decided in advance.

    Args:
        prompt: token ids of a prompt by its index.
        lengths: tokens of every prompt.
        limit_gib: memory that all states together may take. 0: nothing is kept.
        with_kv: keep keys and values too, not hidden states alone.
    """

    def __init__(
        self,
        model: Any,
        prompt: Callable[[int], Sequence[int]],
        lengths: Sequence[int],
        limit_gib: float,
        *,
        with_kv: bool,
    ) -> None:
        self._model, self._prompt, self._count, self._with_kv = model, prompt, len(lengths), with_kv
        needed_gib = sum(lengths) * bytes_per_token(model, with_kv=with_kv) / 2**30
        self._are_kept = needed_gib <= limit_gib
        verdict = "kept in memory" if self._are_kept else "computed in every step, see memory.prompt_cache_gib"
        logger.info("states of %d prompts need about %.1f GiB: %s", self._count, needed_gib, verdict)
        self._chunks: dict[int, list[PromptStates]] = {}

    def states(self, indices: Sequence[int]) -> PromptStates:
        """The states of these prompts, as one batch."""
        if not self._are_kept:
            return self._read([self._prompt(index) for index in indices])
        return join([self._chunk(index // CHUNK)[index % CHUNK] for index in indices])

    def _chunk(self, number: int) -> list[PromptStates]:
        if number not in self._chunks:
            rows = range(number * CHUNK, min((number + 1) * CHUNK, self._count))
            states = self._read([self._prompt(row) for row in rows])
            self._chunks[number] = [states[row : row + 1].clone() for row in range(len(rows))]
        return self._chunks[number]

    def _read(self, prompts: Sequence[Sequence[int]]) -> PromptStates:
        return read_prompts(self._model, prompts, with_kv=self._with_kv)


def bytes_per_token(model: Any, *, with_kv: bool) -> int:
    """Bytes of a token's hidden state and, ``with_kv``, of its keys and values in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    numbers = config.hidden_size + with_kv * config.num_hidden_layers * 2 * heads * head_dim
    return int(numbers * model.get_input_embeddings().weight.element_size())
