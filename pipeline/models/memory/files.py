"""Files of a memory: its parts alone, without the backbone, which they name by its digest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.config.memory import MemoryConfig
from pipeline.errors import CheckpointError, ModelError

PREFIX = "explicit_memory."
"""Begins the tensors' names, as it does in the backbone that the memory is attached to."""
Part = Literal["whole", "router", "fusion", "bank"]
"""What is taken from a memory's file. ``bank``: knowledge space, slots and keys."""
_BANK = ("knowledge_num", "knowledge_length", "knowledge_dim")
_ROUTER = (*_BANK, "gate_rank", "query", "query_layer")
_FUSION = ("knowledge_length", "fusion_rank", "layers", "decode", "positions")
_FORMS = {"whole": _ROUTER + _FUSION, "router": _ROUTER, "fusion": _FUSION, "bank": _BANK}
"""Settings that a part is the same for."""


@dataclass(frozen=True)
class MemoryFile:
    """A memory that was saved."""

    path: Path
    tensors: dict[str, Tensor]
    config: MemoryConfig
    backbone: str
    """Digest of the backbone that it was trained with."""
    knowledge: str
    """Digest of the entries of its bank."""


def backbone_digest(files: Mapping[str, str]) -> str:
    """16 hex digits over the digests of a model's weight files, whatever the files are called."""
    weights = sorted(digest for name, digest in files.items() if name.endswith(".safetensors"))
    return hashlib.sha256(" ".join(weights).encode()).hexdigest()[:16]


def describe(config: MemoryConfig, backbone: str, knowledge: str) -> dict[str, str]:
    """Metadata of a memory's file: one item, since several would be written in any order."""
    return {"memory": json.dumps({"config": config.model_dump(), "backbone": backbone, "knowledge": knowledge})}


def read_memory(path: Path) -> MemoryFile:
    """Raises CheckpointError if it is not a memory's file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["memory"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = MemoryConfig.model_validate(metadata["config"])
        return MemoryFile(path, tensors, config, metadata["backbone"], metadata["knowledge"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ValidationError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise CheckpointError(f"{path} must be a file memory_step_N.safetensors of a run: {reason}.") from None


def check_fits(file: MemoryFile, config: MemoryConfig, backbone: str, num_layers: int, part: Part = "whole") -> None:
    """Raises ModelError if a memory was trained with another backbone, or the part that is taken has another form.

    Args:
        num_layers: of the backbone.
    """
    if file.backbone != backbone:
        raise ModelError(
            f"{file.path} must be loaded onto the backbone it was trained with, {file.backbone}, got {backbone}: its "
            "modules would read other hidden states. Set model.name to that backbone."
        )
    if different := differences(file.config, config, num_layers, part):
        raise ModelError(f"{file.path} must have the form of memory in the configuration, got {', '.join(different)}.")


def differences(own: MemoryConfig, wanted: MemoryConfig, num_layers: int, part: Part) -> list[str]:
    """The settings in which two memories' parts have different forms, each with both values."""
    names = list(dict.fromkeys(_FORMS[part]))
    if part == "router" and wanted.query == "token":  # every layer has a gate of its own
        names.append("layers")

    def form(config: MemoryConfig, name: str) -> Any:
        return set(config.layers or range(num_layers)) if name == "layers" else getattr(config, name)

    return [
        f"{name} {getattr(own, name)}, not {getattr(wanted, name)}"
        for name in names
        if form(own, name) != form(wanted, name)
    ]
