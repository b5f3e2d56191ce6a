"""Tiny random backbones with a memory whose fusion is not zero, and a bank of sentences."""

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.config.memory import MemoryConfig
from pipeline.models.memory.attach import attach_memory
from pipeline.models.memory.entries import entry_token_ids
from pipeline.models.memory.index import build_index, use_index
from pipeline.models.memory.memory import ExplicitMemory
from tests.support.models import tiny_llama, tiny_tokenizer

NAMES, PLACES = ("Bo", "Abu", "Cleo", "Dora"), ("Rome", "Oslo", "Lima")
SENTENCES = tuple(f"{name} is in {place}" for name in NAMES for place in PLACES)


def tiny_qwen3(seed: int = 0) -> Any:
    """A random Qwen3 of the size of ``tiny_llama``."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    llama = tiny_llama().config
    sizes = {name: getattr(llama, name) for name in ("vocab_size", "hidden_size", "intermediate_size")}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    config = Qwen3Config(**sizes, **heads, initializer_range=0.2, bos_token_id=None, eos_token_id=llama.eos_token_id)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def memory_config(preset: str, **settings: Any) -> MemoryConfig:
    sizes = {"knowledge_num": 16, "knowledge_length": 16, "knowledge_dim": 8, "num_candidates": 4}
    sizes |= {"gate_rank": 4, "fusion_rank": 4, "query_layer": 1}
    chosen = {"num_selected": 2} if preset == "routed" else {}
    return MemoryConfig.model_validate({"preset": preset, "knowledge": "-", **sizes, **chosen, **settings})


def with_memory(
    backbone: Any, preset: str, sentences: Sequence[str] = SENTENCES, seed: int = 0, **settings: Any
) -> ExplicitMemory:
    """Attach a memory in which nothing is zero, so that it changes what the backbone says."""
    config = memory_config(preset, **settings)
    memory = attach_memory(backbone.eval(), config, seed)
    token_ids, _ = entry_token_ids(tiny_tokenizer(), sentences, config.knowledge_length)
    use_index(memory, build_index(token_ids, memory.embedding, config.side, config.knowledge_dim, seed), token_ids)
    open_fusion(memory, seed)
    return memory


@torch.no_grad()
def open_fusion(memory: ExplicitMemory, seed: int = 0) -> None:
    """Fill the fusion's last matrices, which are zero before training."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in memory.named_parameters():
        if "gated_memory_fusion.down" in name:
            parameter.normal_(std=3 * parameter.shape[-1] ** -0.5, generator=generator)
