"""AdamW for a policy: which parameters decay, and its state in checkpoints."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import OptimizerConfig
from pipeline.models.memory.modules import EntryAttention
from pipeline.models.memory.product_keys import ProductKeys

logger = logging.getLogger(__name__)

EMBEDDINGS = (nn.Embedding, EntryAttention, ProductKeys)
"""Modules whose own parameters are rows to look up: tokens, positions of an entry, keys."""


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay leaves alone: norms, biases, embeddings and other vectors.

    An output layer that is tied to the embedding is an embedding.
    """
    names = set()
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        is_special = isinstance(owner, EMBEDDINGS) or "norm" in type(owner).__name__.lower()
        if parameter.ndim < 2 or name.endswith("bias") or is_special:
            names.add(name)
    return names


def adamw(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    settings: OptimizerConfig,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
) -> torch.optim.Optimizer:
    """AdamW of a model's trainable tensors. Without weight decay they are one group.

    Args:
        tensors: by their names in the model.
        make: AdamW, or a function that makes a sharded one.
    """
    _warn_of_lost_updates(list(tensors.values()), settings.learning_rate)
    spared = undecayed(model) if settings.weight_decay else set()
    groups = [
        {"params": [tensor for name, tensor in tensors.items() if (name in spared) == is_spared], "weight_decay": decay}
        for is_spared, decay in ((False, settings.weight_decay), (True, 0.0))
    ]
    return make(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        fused=next(iter(tensors.values())).device.type in ("cpu", "cuda"),
    )


@torch.no_grad()
def _warn_of_lost_updates(parameters: Sequence[Tensor], learning_rate: float) -> None:
    """An update moves a weight by about the learning rate. In bfloat16 that can be too little to change it."""
    coarse = [p for p in parameters if p.dtype == torch.bfloat16]
    stuck = sum(int((p + learning_rate == p).sum()) for p in coarse)
    if stuck > 0.5 * sum(p.numel() for p in coarse):
        logger.warning(
            "%.0f %% of the weights do not move by one update: in bfloat16 a learning rate of %g is less than half the "
            "distance to the next number. Set model.master_dtype=float32",
            100 * stuck / sum(p.numel() for p in coarse),
            learning_rate,
        )


def moments(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> dict[int, Any]:
    """The optimizer's state by the index of each parameter, whatever the parameter groups. This is the form of
    ``state`` in every checkpoint, including those that are older than the groups."""
    return {index: optimizer.state[p] for index, p in enumerate(parameters) if p in optimizer.state}


def load_moments(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], saved: Mapping[int, Any]) -> None:
    """Take over what ``moments`` returned, for the parameters that this optimizer has. It keeps its own learning rate,
    betas and weight decay."""
    own = optimizer.state_dict()
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    index_of = {identity: index for index, identity in enumerate(grouped)}
    held = {index: index_of.get(id(parameters[index])) for index in saved}
    state = {own_index: saved[index] for index, own_index in held.items() if own_index is not None}
    optimizer.load_state_dict(own | {"state": state})
