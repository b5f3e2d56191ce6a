"""Attaches an explicit memory to a backbone, freezes the backbone, and chooses the parts that train."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.config.memory import MemoryConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.memory.modules import initialize
from pipeline.seeds import derive_seed

ATTRIBUTE = "explicit_memory"
"""The memory's name in the backbone: its parameters' names begin with it."""


def attach_memory(model: Any, config: MemoryConfig, seed: int, dtype: torch.dtype = torch.float32) -> ExplicitMemory:
    """Freeze a decoder of the transformers library and let its layers read a new memory, still without entries.

    The layers' own code is not touched: a hook after each of them adds what the memory gives.

    Raises:
        ConfigError: a layer or dimension does not exist in this backbone.
    """
    decoder = model.get_decoder()
    layers = _checked_layers(config, decoder)
    model.requires_grad_(False)
    embedding = model.get_input_embeddings()
    device = embedding.weight.device
    with torch.random.fork_rng(devices=[]), device if device.type == "meta" else nullcontext():
        torch.manual_seed(derive_seed(seed, "memory"))  # of the CPU, so that every device has the same weights
        memory = ExplicitMemory(config, model.config.hidden_size, layers, embedding)
        initialize(memory)
    memory.to(device=device, dtype=dtype)
    setattr(model, ATTRIBUTE, memory)
    for layer in layers:
        decoder.layers[layer].register_forward_hook(_reads_after(memory, layer))
    if model.is_gradient_checkpointing:
        recompute = {"use_reentrant": False, "context_fn": memory.recomputing}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=recompute)
    return memory


def memory_of(model: nn.Module) -> ExplicitMemory | None:
    """The memory that is attached to a model, if any."""
    return getattr(model, ATTRIBUTE, None)


def _checked_layers(config: MemoryConfig, decoder: Any) -> list[int]:
    num_layers, d = len(decoder.layers), decoder.config.hidden_size
    layers = list(range(num_layers)) if config.layers is None else sorted(set(config.layers))
    if wrong := [layer for layer in layers if not 0 <= layer < num_layers]:
        raise ConfigError(f"memory.layers must be layers of the backbone, 0 to {num_layers - 1}, got {wrong}.")
    if config.query == "pooled" and config.query_layer > num_layers:
        raise ConfigError(f"memory.query_layer must be at most {num_layers} here, got {config.query_layer}.")
    if config.knowledge_dim > d:
        raise ConfigError(f"memory.knowledge_dim must be at most the hidden size {d}, got {config.knowledge_dim}.")
    return layers


def _reads_after(memory: ExplicitMemory, layer: int) -> Any:
    def read(module: nn.Module, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # of older versions of the library
            return (memory.after_layer(layer, output[0]), *output[1:])
        return memory.after_layer(layer, output)

    return read


def set_trainable(memory: ExplicitMemory, parts: Sequence[str], *, router: bool) -> None:
    """Let these parts train, and no others: ``memory_gate``, ``memory_norm``, ``gated_memory_fusion``,
    ``product_keys``.

    Args:
        router: train the parts of the pooled router. False: those of the layers.
    """
    chosen = {*parts, "memory_attention"} if "gated_memory_fusion" in parts else {*parts}
    chosen |= {"pooling", "log_temperature"} if "memory_gate" in parts else set()
    for name, parameter in memory.named_parameters():
        is_router = name.startswith("router.")
        parameter.requires_grad_(is_router == router and not chosen.isdisjoint(name.split(".")))


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a backbone with a memory."""

    backbone: int
    trainable: int
    frozen: int
    """Parts of the memory that do not train, without keys."""
    keys: int

    def __str__(self) -> str:
        total = self.backbone + self.trainable + self.frozen + self.keys
        return (
            f"backbone {self.backbone / 1e6:.3f} M (frozen), memory {self.trainable / 1e6:.3f} M (trainable) and "
            f"{self.frozen / 1e6:.3f} M (frozen), product keys {self.keys / 1e6:.3f} M: "
            f"{self.trainable / total:.2%} train"
        )


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count a model's parameters by what they are.

    Raises:
        ModelError: a parameter of the backbone would be trained.
    """
    own = {name: p for name, p in model.named_parameters() if name.startswith(f"{ATTRIBUTE}.")}
    backbone = {name: p for name, p in model.named_parameters() if name not in own}
    if unfrozen := [name for name, parameter in backbone.items() if parameter.requires_grad]:
        raise ModelError(
            f"the backbone must be frozen, got {len(unfrozen)} of its parameters that would train, such as "
            f"{unfrozen[0]}. Only the memory's parts learn."
        )
    trainable = sum(p.numel() for p in own.values() if p.requires_grad)
    keys = sum(p.numel() for name, p in own.items() if "product_keys" in name and not p.requires_grad)
    total = sum(p.numel() for p in own.values())
    return ParameterCounts(sum(p.numel() for p in backbone.values()), trainable, total - trainable - keys, keys)
