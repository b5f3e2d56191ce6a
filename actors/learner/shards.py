"""AdamW that is sharded over learner workers (``learner.shard_optimizer``): each worker holds some of the moments.

torch's ZeroRedundancyOptimizer divides whole parameters, the largest first. Each worker updates its own and broadcasts
them. Its state dict is not used: rank 0 would keep a copy of all moments after it wrote a checkpoint, and every worker
another one of its own after it loaded one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from actors.learner.ranks import Ranks
from pipeline.errors import ModelError

_MOMENTS = ("exp_avg", "exp_avg_sq")


def sharded_adamw(groups: Sequence[dict[str, Any]], **settings: Any) -> Optimizer:
    """AdamW of parameter groups, sharded over the workers of the process group. All workers must call it.

    Raises:
        ModelError: the parameters have several precisions.
    """
    if len(dtypes := {parameter.dtype for group in groups for parameter in group["params"]}) > 1:
        raise ModelError(
            "learner.shard_optimizer must be false if trained weights differ in precision, got "
            f"{', '.join(sorted(map(str, dtypes)))}: torch shards one precision only."
        )
    from torch.distributed.optim import ZeroRedundancyOptimizer  # slow to import, and rarely needed

    return ZeroRedundancyOptimizer(groups, optimizer_class=AdamW, **settings)


def local_part(optimizer: Optimizer) -> Optimizer:
    """The optimizer of this worker's share; one that is not sharded, unchanged."""
    part: Optimizer = getattr(optimizer, "optim", optimizer)
    return part


def gather_moments(own: Mapping[int, Any], parameters: Sequence[Tensor], ranks: Ranks) -> dict[int, Any]:
    """Gather all workers' moments on the CPU of rank 0; the other workers get nothing. All workers must call it.

    One tensor travels at a time, so no worker but rank 0 ever holds more than its own.

    Args:
        own: this worker's moments, by the index of the parameter.
    """
    steps = ranks.gather([(index, ranks.rank, float(state["step"])) for index, state in own.items()])
    gathered: dict[int, Any] = {}
    for index, owner, step in sorted(steps):
        like = parameters[index]
        state = {name: ranks.to_first(own[index][name] if index in own else None, owner, like) for name in _MOMENTS}
        if ranks.is_first:
            gathered[index] = {"step": torch.tensor(step), **state}
    return gathered
