"""Loads a frozen backbone with an explicit memory and its bank."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.config.memory import MemoryConfig
from pipeline.errors import DataError
from pipeline.models.hub import model_files
from pipeline.models.memory.attach import attach_memory
from pipeline.models.memory.entries import entries_digest, entry_token_ids
from pipeline.models.memory.files import (
    PREFIX,
    MemoryFile,
    Part,
    backbone_digest,
    check_fits,
    describe,
    differences,
    read_memory,
)
from pipeline.models.memory.index import build_index, cached_index, index_digest, use_index
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.policy import load_policy
from pipeline.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryModel:
    """A backbone with its memory."""

    backbone: Any
    memory: ExplicitMemory


def check_room(num_entries: int, memory: MemoryConfig) -> None:
    """Raises DataError if there are more entries than slots, or none."""
    if not 0 < num_entries <= memory.knowledge_num:
        raise DataError(
            f"memory.knowledge must have 1 to memory.knowledge_num={memory.knowledge_num} entries, got {num_entries}. "
            "Raise knowledge_num, or leave some out."
        )


def warn_of_empty_slots(num_entries: int, memory: MemoryConfig) -> None:
    """Log a warning if fewer than half of the slots are filled."""
    needed = max(num_entries, memory.num_candidates, 4)
    fitting = (math.isqrt(needed - 1) + 1) ** 2
    if 2 * num_entries < memory.knowledge_num and fitting < memory.knowledge_num:
        logger.warning(
            "memory.knowledge fills %d of %d slots: many queries may find empty ones alone. Lower memory.knowledge_num "
            "to %d",
            num_entries,
            memory.knowledge_num,
            fitting,
        )


def load_memory_model(
    path: Path,
    model: ModelConfig,
    memory: MemoryConfig,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    cache: Path,
    seed: int,
    file: MemoryFile | None = None,
    *,
    pretrained: bool = True,
) -> MemoryModel:
    """The backbone in ``path``, frozen, with a memory: a new one, or that of a file.

    Args:
        texts: the entries of the bank.
        cache: directory of knowledge caches.
        pretrained: False: a checkpoint is loaded next, so nothing that it holds is read or computed here: neither
            ``memory.router_path`` and ``memory.fusion_path``, nor slots and keys.

    Raises:
        DataError: there are more entries than slots.
        ModelError: it cannot be loaded, or the file was trained with another backbone.
    """
    check_room(len(texts), memory)
    if file is None:
        warn_of_empty_slots(len(texts), memory)
    backbone: Any = load_policy(path, model, frozen=True)
    own = attach_memory(backbone, memory, seed)
    digest = backbone_digest(model_files(path, with_code=model.trust_remote_code))
    num_layers = len(backbone.get_decoder().layers)
    files = _files(memory, file, pretrained=pretrained)
    for part, saved in files.items():
        check_fits(saved, memory, digest, num_layers, part)
    token_ids, num_cut = entry_token_ids(tokenizer, texts, memory.knowledge_length)
    if num_cut:
        logger.warning("%d of %d entries are longer than %d tokens, and cut", num_cut, len(texts), token_ids.shape[1])
    knowledge = entries_digest(token_ids)
    if pretrained or file:
        with_bank = (saved for saved in files.values() if not differences(saved.config, memory, num_layers, "bank"))
        _fill(own, token_ids, knowledge, cache, seed, next(with_bank, None))
    else:
        own.bank.set_entries(token_ids, own.embedding)
    for part, saved in files.items():
        _load_part(own, saved, part)
    own.metadata = describe(memory, digest, knowledge)
    return MemoryModel(backbone, own)


def _files(memory: MemoryConfig, file: MemoryFile | None, *, pretrained: bool) -> dict[Part, MemoryFile]:
    """The parts that are taken from files: all of the given one, or what the configuration names."""
    if file:
        return {"whole": file}
    paths: dict[Part, str | None] = {"router": memory.router_path, "fusion": memory.fusion_path}
    return {part: read_memory(Path(path)) for part, path in paths.items() if path and pretrained}


def _fill(
    own: ExplicitMemory, token_ids: Tensor, knowledge: str, cache: Path, seed: int, saved: MemoryFile | None
) -> None:
    """Put the entries into the slots, and the keys into the product keys. A file with the same entries gives both, as
    they were trained, whatever seed, dtype or code made them; with other entries it gives its knowledge space."""
    if saved:
        _copy(own, saved, lambda name: name.startswith("bank."))
    if saved and saved.knowledge == knowledge:
        _copy(own, saved, lambda name: "product_keys" in name)
        own.bank.set_entries(token_ids, own.embedding)
        return
    config, space, depends_on = own.config, None, [token_ids, own.embedding]
    if saved:
        logger.warning("%s has another bank: slots and product keys are computed anew for these entries", saved.path)
        space, depends_on = own.bank.space, [*depends_on, own.bank.space_matrix]
    index = cached_index(
        cache,
        index_digest(depends_on, config.knowledge_dim, config.side, seed),
        lambda: build_index(token_ids, own.embedding, config.side, config.knowledge_dim, seed, space),
        recompute=config.recompute_cache,
    )
    use_index(own, index, token_ids)


def _load_part(own: ExplicitMemory, saved: MemoryFile, part: Part) -> None:
    """Copy the trained parts of a file, without bank and keys: the ``router``, the ``fusion``, or the whole."""

    def is_wanted(name: str) -> bool:
        is_router = name.startswith("router.") or "memory_gate" in name
        is_shared = "memory_norm" in name and not own.router  # the gate of a layer reads what its fusion reads
        of_part = is_shared or is_router == (part == "router")
        return not name.startswith("bank.") and "product_keys" not in name and (part == "whole" or of_part)

    _copy(own, saved, is_wanted)


@torch.no_grad()
def _copy(own: ExplicitMemory, saved: MemoryFile, is_wanted: Callable[[str], bool]) -> None:
    for name, tensor in own.state_dict().items():
        if is_wanted(name):
            tensor.copy_(saved.tensors[PREFIX + name])
