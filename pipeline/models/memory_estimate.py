"""How much memory a learner's tensors need, estimated from shapes alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Config, ModelConfig, SFTConfig
from pipeline.errors import ModelError, first_line
from pipeline.models import embedded
from pipeline.models.device import torch_dtype

FLOAT32 = 4
_BLOCK = {"cpu": 2**20, "gpu": 2**26}
"""Logits that are in float32 at a time: see ``token_logprobs``."""


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder of the kind of Llama, Mistral and Qwen."""

    hidden: int
    intermediate: int
    num_layers: int
    queries: int
    """num_attention_heads x head_dim"""
    keys: int
    """num_key_value_heads x head_dim"""
    vocab: int
    is_tied: bool

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of a layer's linear modules."""
        h, f = self.hidden, self.intermediate
        attention = {"q_proj": (h, self.queries), "k_proj": (h, self.keys), "v_proj": (h, self.keys)}
        return attention | {"o_proj": (self.queries, h), "gate_proj": (h, f), "up_proj": (h, f), "down_proj": (f, h)}

    @property
    def num_linear_weights(self) -> int:
        """Weights in matrix products: those of all layers, and of the output embedding."""
        return self.num_layers * sum(a * b for a, b in self.linears.values()) + self.vocab * self.hidden

    @property
    def num_weights(self) -> int:
        """All weights but biases."""
        norms = (2 * self.num_layers + 1) * self.hidden
        return self.num_linear_weights + norms + (0 if self.is_tied else self.vocab * self.hidden)


def model_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """Read a model's config.json; None for other architectures, such as mixtures of experts."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    if any(not isinstance(config.get(name), int) for name in names) or any("experts" in name for name in config):
        return None
    hidden, intermediate, num_layers, num_heads, vocab = (config[name] for name in names)
    head = config.get("head_dim") or hidden // num_heads
    num_kv_heads = config.get("num_key_value_heads") or num_heads
    tied = bool(config.get("tie_word_embeddings", False))
    return ModelShape(hidden, intermediate, num_layers, num_heads * head, num_kv_heads * head, vocab, tied)


@dataclass(frozen=True)
class LearnerMemory:
    """Estimated bytes of a learner worker's tensors at the peak of a step."""

    weights: int
    """With their copies in the precision of the passes."""
    gradients: int
    optimizer: int
    """AdamW's moments."""
    reference: int
    activations: int
    """What the forward pass of one micro-batch keeps for the backward pass, without the logits."""
    logits: int
    """With their gradient."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def describe(self) -> str:
        parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in asdict(self).items() if size)
        return f"{self.total / 2**30:.2f} GiB ({parts})"


def plan_memory(config: Config) -> LearnerMemory | None:
    """Memory of each learner worker; None if the model is not on this machine or its shape is not known, and for an
    explicit memory, whose frozen backbone needs other amounts.

    Raises:
        ModelError: its config.json cannot be read.
    """
    path = None if config.memory else _config_file(config.model)
    try:
        shape = model_shape(json.loads(path.read_text())) if path else None
    except (OSError, ValueError) as error:
        raise ModelError(f"model {config.model.name} must have a readable config.json: {first_line(error)}") from None
    if shape is None:
        return None
    settings = [config.stage_settings(stage) for stage in config.stages]
    rollout_tokens = config.rollout.max_prompt_length + config.rollout.max_completion_length
    longest = max(each.max_length if isinstance(each, SFTConfig) else rollout_tokens for each in settings)
    return learner_memory(
        shape,
        config.model,
        max(config.learner.tokens_per_micro_batch, longest),
        with_reference=any(not isinstance(each, SFTConfig) and each.beta > 0 for each in settings),
        on_gpu=config.learner.num_gpus > 0,
        num_shards=config.learner.num_workers if config.learner.shard_optimizer else 1,
    )


def _config_file(config: ModelConfig) -> Path | None:
    directory = Path(config.name).expanduser()
    if config.name == embedded.NAME:
        directory = embedded.embedded_model_dir()
    if directory.is_dir():
        return directory / "config.json"
    if config.name.startswith("embedded:") or config.hub == "modelscope":
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(config.name, "config.json", revision=config.revision)
    return Path(cached) if isinstance(cached, str) else None


def learner_memory(
    shape: ModelShape,
    config: ModelConfig,
    num_tokens: int,
    *,
    with_reference: bool = False,
    on_gpu: bool = False,
    num_shards: int = 1,
) -> LearnerMemory:
    """Estimate from the tensors that training keeps. The process itself, and short-lived buffers, come on top.

    Args:
        num_tokens: tokens of the largest micro-batch. All count as targets.
        num_shards: workers that share AdamW's moments.
    """
    compute, master = torch_dtype(config.dtype).itemsize, torch_dtype(config.master_dtype).itemsize
    base, num_trained = master, shape.num_weights
    if config.lora:
        base, num_trained = compute, shape.num_layers * sum(_adapters(shape, config).values())
    trained = num_trained * master
    copies = (num_trained if config.lora else shape.num_weights) * compute if compute != master else 0
    num_logits = num_tokens * shape.vocab
    block = min(num_logits, _BLOCK["gpu" if on_gpu else "cpu"]) * FLOAT32
    return LearnerMemory(
        weights=shape.num_weights * base + (trained if config.lora else 0) + copies,
        gradients=trained,
        optimizer=2 * trained // num_shards,
        reference=trained if with_reference else 0,
        activations=num_tokens * _activations_per_token(shape, config, compute),
        logits=num_logits * compute + max(2 * block, num_logits * compute + block),
    )


def _adapters(shape: ModelShape, config: ModelConfig) -> dict[str, int]:
    """LoRA weights in a layer by the name of the linear module."""
    lora = config.lora
    names = [name for name in lora.target_modules if name in shape.linears] if lora else []
    return {name: sum(shape.linears[name]) * lora.r for name in names if lora}


def _activations_per_token(shape: ModelShape, config: ModelConfig, compute: int) -> int:
    lora = config.lora
    norms = 2 * shape.hidden * (FLOAT32 + (0 if lora else compute))  # the input, and what a trained weight multiplies
    attention = 3 * shape.queries + 2 * shape.keys  # q, k, v, the output, and the input of o_proj
    layer = norms + compute * (2 * shape.hidden + attention + 4 * shape.intermediate)
    layer += compute * (lora.r * len(_adapters(shape, config)) if lora else 0)
    if config.gradient_checkpointing:
        return layer + shape.num_layers * compute * shape.hidden
    return layer * shape.num_layers
