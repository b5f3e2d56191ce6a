"""Runs many tasks with Ray Data and yields their tables in order, in bounded memory."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from actors.driver.actor_plan import ActorPlan
from actors.driver.cluster import has_room

TASK = ActorPlan("a task of Ray Data", 1, 1.0, 0.0, 0.0)
"""The room that each needs, by default."""


def tasks_can_start() -> bool:
    """False where actors, of this job or of others, have left no node with a whole CPU: tasks would wait without a
    limit and without a message. Ray must be connected."""
    return has_room([TASK])


def tables_in_order(
    task: Callable[[int], Iterator[pa.Table]], num_tasks: int, *, max_bytes: int, env_vars: dict[str, str] | None = None
) -> Iterator[pa.Table]:
    """The tables of task 0, of task 1 and so on. Ray must be connected.

    Args:
        max_bytes: tables in the object store. Tasks wait if the caller does not keep up.
        env_vars: of the processes that run the tasks, which then run nothing else.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that there are no bars
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ray.data.ExecutionResources(object_store_memory=max_bytes)

    def run(numbers: dict[str, np.ndarray]) -> Iterator[pa.Table]:
        for number in numbers["id"]:
            yield from task(int(number))

    environment: dict[str, Any] = {"runtime_env": {"env_vars": env_vars}} if env_vars else {}
    tasks = ray.data.range(num_tasks, override_num_blocks=num_tasks)
    results = tasks.map_batches(run, batch_size=None, **environment)
    yield from results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
