"""Loads a frozen backbone with an explicit memory and its bank."""

import logging
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
from pipeline.models.memory.entries import entry_token_ids
from pipeline.models.memory.files import PREFIX, MemoryFile, backbone_digest, check_fits, describe, read_memory
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


def load_memory_model(
    path: Path,
    model: ModelConfig,
    memory: MemoryConfig,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    cache: Path,
    seed: int,
    file: MemoryFile | None = None,
) -> MemoryModel:
    """The backbone in ``path``, frozen, with a memory: a new one, or that of a file.

    Args:
        texts: the entries of the bank.
        cache: directory of knowledge caches.

    Raises:
        DataError: there are more entries than slots.
        ModelError: it cannot be loaded, or the file was trained with another backbone.
    """
    check_room(len(texts), memory)
    backbone = load_policy(path, model, frozen=True)
    own = attach_memory(backbone, memory, seed)
    digest = backbone_digest(model_files(path, with_code=model.trust_remote_code))
    files = [(file, "")] if file else _pretrained(memory)
    for saved, _ in files:
        check_fits(saved, memory, digest)
    token_ids, num_cut = entry_token_ids(tokenizer, texts, memory.knowledge_length)
    if num_cut:
        logger.warning("%d of %d entries are longer than %d tokens, and cut", num_cut, len(texts), token_ids.shape[1])
    knowledge = _fill(own, token_ids, cache, seed, next((saved for saved, _ in files), None))
    for saved, part in files:
        _load_part(own, saved, part)
    own.metadata = describe(memory, digest, knowledge)
    return MemoryModel(backbone, own)


def _pretrained(memory: MemoryConfig) -> list[tuple[MemoryFile, str]]:
    """The files that the configuration names, each with the part that is taken from it."""
    paths = {"router": memory.router_path, "fusion": memory.fusion_path}
    return [(read_memory(Path(path)), part) for part, path in paths.items() if path]


def _fill(own: ExplicitMemory, token_ids: Tensor, cache: Path, seed: int, saved: MemoryFile | None) -> str:
    """Put the entries into slots: those of the file if it had the same entries. Otherwise slots and keys are computed,
    in the file's knowledge space if there is one. Returns the digest of the entries."""
    config = own.config
    settings = (config.knowledge_dim, config.side, seed)
    knowledge = index_digest([token_ids, own.embedding], *settings)
    name, space = knowledge, None
    if saved:
        _copy(own, saved, lambda part: part.startswith("bank."))
        name, space = index_digest([token_ids, own.embedding, own.bank.space_matrix], *settings), own.bank.space
    if saved and saved.knowledge == knowledge:
        _copy(own, saved, lambda part: "product_keys" in part)
        own.bank.set_entries(token_ids, own.embedding)
    else:
        index = cached_index(
            cache,
            name,
            lambda: build_index(token_ids, own.embedding, config.side, config.knowledge_dim, seed, space),
            recompute=config.recompute_cache,
        )
        use_index(own, index, token_ids)
    return knowledge


def _load_part(own: ExplicitMemory, saved: MemoryFile, part: str) -> None:
    """Copy the trained parts of a file, without bank and keys: the ``router``, the ``fusion``, or all."""

    def is_wanted(name: str) -> bool:
        is_router = name.startswith("router.") or "memory_gate" in name
        is_shared = "memory_norm" in name and not own.router  # the gate of a layer reads what its fusion reads
        of_part = is_shared or is_router == (part == "router")
        return not name.startswith("bank.") and "product_keys" not in name and (not part or of_part)

    _copy(own, saved, is_wanted)


@torch.no_grad()
def _copy(own: ExplicitMemory, saved: MemoryFile, is_wanted: Callable[[str], bool]) -> None:
    for name, tensor in own.state_dict().items():
        if is_wanted(name):
            tensor.copy_(saved.tensors[PREFIX + name])
