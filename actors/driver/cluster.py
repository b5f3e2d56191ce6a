"""The Ray cluster a job runs on: connecting to it, and waiting until it has room for all actors."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray

from actors.driver.actor_plan import ActorPlan, needed_resources
from pipeline.errors import ClusterError


def joins_cluster() -> bool:
    """True if the job was submitted to a cluster; otherwise it starts a private Ray."""
    return "RAY_ADDRESS" in os.environ


@contextmanager
def connected_ray() -> Iterator[None]:
    """Connect to the cluster a job was submitted to, or start a private Ray on this machine.

    A Ray that this process is already connected to is used, and left running.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # report() waits for it: 2 s by default
    if ray.is_initialized():
        yield
        return
    joins = joins_cluster()
    if not joins:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one fewer process to start per stage
    ray.init(
        address=None if joins else "local",
        include_dashboard=None if joins else False,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


def wait_for_resources(actors: Sequence[ActorPlan]) -> None:
    """Wait until the cluster has room for all actors. A cluster may still be growing; a private Ray never grows.

    Raises:
        ClusterError: there is still no room after a minute. Names what is missing.
    """
    timeout_s = 60.0 if joins_cluster() else 0.0
    needed = needed_resources(actors)
    deadline = time.monotonic() + timeout_s
    while True:
        available = ray.available_resources()
        missing = {name: amount for name, amount in needed.items() if available.get(name, 0.0) < amount}
        if not missing:
            return
        if time.monotonic() > deadline:
            name, amount = next(iter(missing.items()))
            unit = 2**30 if name == "memory" else 1
            label = "GiB of memory" if name == "memory" else f"{name}s"
            raise ClusterError(
                f"the cluster must have {amount / unit:g} {label} free for all actors, got "
                f"{available.get(name, 0.0) / unit:.3g} in {timeout_s:g} s. Lower num_workers, num_cpus, num_gpus or "
                "memory_gib of learner, rollout or reward (--dry-run lists them), or add a node."
            )
        time.sleep(1)
