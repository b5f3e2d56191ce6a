"""Explicit memories of tiny backbones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import MemoryConfig
from pipeline.models.memory.attach import attach_memory
from pipeline.models.memory.bank import PADDING
from pipeline.models.memory.index import build_index, use_index
from pipeline.models.memory.memory import ExplicitMemory, Reading
from tests.support.data import write_jsonl
from tests.support.loops import write_splits
from tests.support.models import tiny_llama

PRESETS = ("explicitlm", "routed")
LENGTH = 6
"""Tokens of an entry."""


def memory_config(preset: str = "explicitlm", **settings: Any) -> MemoryConfig:
    sizes = {"knowledge_num": 36, "knowledge_length": LENGTH, "knowledge_dim": 16, "num_candidates": 8}
    ranks = {"gate_rank": 8, "fusion_rank": 8, "query_layer": 1}
    return MemoryConfig.model_validate({"preset": preset, "knowledge": "none", **sizes, **ranks, **settings})


def tiny_qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "max_position_embeddings": 1024}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen3ForCausalLM(Qwen3Config(vocab_size=259, **sizes, **heads))


BACKBONES = {"llama": tiny_llama, "qwen3": tiny_qwen3}


def random_entries(count: int, seed: int = 0, *, length: int = LENGTH) -> Tensor:
    """Token ids of entries of 2 tokens at least, [count, length]."""
    generator = torch.Generator().manual_seed(seed)
    token_ids = torch.randint(0, 259, (count, length), generator=generator, dtype=torch.int32)
    lengths = torch.randint(2, length + 1, (count, 1), generator=generator)
    return token_ids.masked_fill(torch.arange(length) >= lengths, PADDING)


def with_memory(model: Any, config: MemoryConfig, entries: Tensor | None = None, seed: int = 0) -> ExplicitMemory:
    """Attach a memory whose bank holds these entries; by default, as many as there are slots."""
    memory = attach_memory(model, config, seed)
    token_ids = random_entries(config.knowledge_num) if entries is None else entries
    use_index(memory, build_index(token_ids, memory.embedding, config.side, config.knowledge_dim, seed), token_ids)
    return memory


def reading_for(config: MemoryConfig, num_rows: int) -> Reading:
    """The reading of a training step: own entries with noise, or given ones."""
    if config.selection == "given":
        return Reading(entries=random_entries(num_rows, seed=1)[:, None])
    return Reading(seeds=torch.arange(num_rows))


def layer_of(memory: ExplicitMemory, layer: int = 0) -> Any:
    """The modules of a decoder layer."""
    return memory.layers[str(layer)]


@torch.no_grad()
def set_random_weights(module: nn.Module, std: float = 0.3) -> None:
    """As if after training."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


OBJECTS = ("Lima", "Oslo", "Rome")


def memory_settings(model: Path, directory: Path, preset: str) -> dict[str, Any]:
    """A router of four steps, then a fusion of four, on eight questions about twelve entries, which are written too."""
    template, entries = "[X] lies in [Y].", []
    for number in range(12):
        row = {"id": number, "subject": f"s{number}", "relation": "r", "object": OBJECTS[number % 3]}
        entries.append({**row, "template": template, "text": f"s{number} lies in {row['object']}."})
    write_jsonl(directory / "knowledge.jsonl", *entries)
    questions = [_question(entry) for entry in entries]
    write_splits(directory, questions[:8])
    stage = {"max_steps": 4, "num_train_epochs": 9.0, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    sizes = {"knowledge_num": 16, "knowledge_length": 24, "knowledge_dim": 16, "num_candidates": 8, "query_layer": 1}
    return {
        "model": {"name": str(model), "dtype": "float32", "device": "cpu"},
        "data": {"name": str(directory), "layout": "conversations", "fields": {"id": "question_id"}},
        "memory": {"preset": preset, "knowledge": str(directory / "knowledge.jsonl"), **sizes, "fusion_rank": 8},
        "stages": [{"name": "router", "kind": "router"}, {"name": "fusion", "kind": "memory_sft"}],
        "router": stage,
        "memory_sft": stage,
        "learner": {"tokens_per_micro_batch": 128, "num_threads": 1, "num_cpus": 0.1, "memory_gib": 0.3},
        "eval": {"problems_per_level": 0},
        "checkpoint": {"every_steps": 1, "keep_last": 99},
        "tracking": {"backends": []},
    }


def _question(entry: dict[str, Any]) -> dict[str, Any]:
    asked = f"{entry['subject']}? {', '.join(OBJECTS)}"
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": entry["object"]}]
    answer = {"options": OBJECTS, "answer_index": OBJECTS.index(entry["object"])}
    return {"question_id": f"q{entry['id']}", "entry_id": entry["id"], **answer, "conversations": turns}
