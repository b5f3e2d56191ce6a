"""The knowledge cache: the space, slots and product keys of a bank, computed once and kept in a file."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.data.arrow_files import code_digest
from pipeline.models.memory import bank as bank_module
from pipeline.models.memory import slots as slots_module
from pipeline.models.memory.bank import KnowledgeSpace, knowledge_space, mean_embeddings
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.memory.product_keys import ProductKeys
from pipeline.models.memory.slots import assign_slots

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnowledgeIndex:
    """Where the entries of a bank are."""

    space_mean: Tensor
    """[d]"""
    space_matrix: Tensor
    """[d, K]"""
    slot_of_entry: Tensor
    """[E] int64"""
    rows: Tensor
    """[S, K/2]"""
    columns: Tensor
    """[S, K/2]"""


def build_index(
    token_ids: Tensor, embedding: Tensor, side: int, dim: int, seed: int, space: KnowledgeSpace | None = None
) -> KnowledgeIndex:
    """Embed all entries, assign them to slots, and take the keys from their clusters.

    Args:
        token_ids: [E, L].
        embedding: [V, d], the backbone's.
        space: that of a trained router. None: the principal components of these entries.
    """
    space = space or knowledge_space(token_ids, embedding, dim)
    space = KnowledgeSpace(space.mean.cpu(), space.matrix.cpu())
    embedded = torch.empty(len(token_ids), dim)
    for block, means in mean_embeddings(token_ids, embedding):
        embedded[block] = space(means.cpu())
    slots, rows, columns = assign_slots(embedded.numpy(), side, seed)
    return KnowledgeIndex(
        space.mean, space.matrix, torch.from_numpy(slots), torch.from_numpy(rows), torch.from_numpy(columns)
    )


def cached_index(
    folder: Path, digest: str, build: Callable[[], KnowledgeIndex], *, recompute: bool = False
) -> KnowledgeIndex:
    """The index of ``build`` from its file, which is made unless it exists.

    Args:
        digest: of all that it depends on; names the file.
        recompute: make it again.
    """
    path = folder / f"knowledge_{digest}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        index = None if recompute else _read(path)
        if index is None:
            logger.info("building the knowledge cache %s", path)
            index, hidden = build(), path.with_name(f".{path.name}.partial")
            save_file({name: tensor.contiguous() for name, tensor in vars(index).items()}, hidden)
            os.replace(hidden, path)
    return index


def _read(path: Path) -> KnowledgeIndex | None:
    """The index in a file; None if there is none, or it was cut short by a full disk."""
    try:
        return KnowledgeIndex(**load_file(path))
    except (FileNotFoundError, SafetensorError, TypeError):
        return None


def index_digest(tensors: Sequence[Tensor], *settings: Any) -> str:
    """16 hex digits over the entries and the backbone's embedding, the settings and our code."""
    digest = hashlib.sha256(f"{settings} {code_digest(*(m.__file__ for m in (bank_module, slots_module)))}".encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@torch.no_grad()
def use_index(memory: ExplicitMemory, index: KnowledgeIndex, token_ids: Tensor) -> None:
    """Put the entries into their slots, and the keys into every set of product keys.

    Args:
        token_ids: [E, L].
    """
    bank = memory.bank
    bank.space_mean.copy_(index.space_mean)
    bank.space_matrix.copy_(index.space_matrix)
    bank.entry_of_slot.fill_(-1)
    bank.entry_of_slot[index.slot_of_entry] = torch.arange(len(token_ids), device=bank.entry_of_slot.device)
    for module in memory.modules():
        if isinstance(module, ProductKeys):
            module.rows.copy_(index.rows)
            module.columns.copy_(index.columns)
    bank.set_entries(token_ids, memory.embedding)
