"""Two processes as ranks of one process group, as Ray Train makes them."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
LIMIT_S = 120.0
"""Of one collective operation: then ranks have not agreed."""


def on_two_ranks(work: Callable[..., T], store: Path, *arguments: Any) -> list[T]:
    """The results of a function on rank 0 and on rank 1.

    Args:
        store: a file that does not exist yet.
    """
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_as_rank, rank, store, work, *arguments) for rank in range(2)]
        return [future.result(timeout=2 * LIMIT_S) for future in futures]


def _as_rank(rank: int, store: Path, work: Callable[..., T], *arguments: Any) -> T:
    torch.set_num_threads(1)
    limit = timedelta(seconds=LIMIT_S)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=limit)
    try:
        return work(*arguments)
    finally:
        dist.destroy_process_group()
