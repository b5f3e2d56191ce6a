"""The Ray cluster a job runs on, and room there for actors that are asked for together."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from actors.calls import REPORT_EVERY_S
from actors.connection import connect, joins_cluster
from actors.driver.actor_plan import ActorPlan, bundles, needed_resources
from pipeline.errors import ClusterError
from pipeline.runs.waits import report_wait

POLL_S = 1.0
_LOCK = "gradus-admission"


@contextmanager
def connected_ray() -> Iterator[None]:
    """Connect to the cluster a job was submitted to, or start a private Ray on this machine.

    A Ray that this process is already connected to is used, and left running.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # report() waits for it: 2 s by default
    if ray.is_initialized():
        yield
        return
    if not joins_cluster():
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one fewer process to start per stage
    connect()
    try:
        yield
    finally:
        ray.shutdown()


def wait_for_room(actors: Sequence[ActorPlan], limit_s: float) -> None:
    """Wait until all actors fit on the cluster's nodes together, whoever uses them now. Nothing stays reserved.

    They are asked for in one placement group: it takes all or nothing, and a cluster that grows sees what is missing.

    Raises:
        ClusterError: there is still no room, or a private Ray, which never grows, is too small. Names what is missing.
    """
    if not bundles(actors):
        return
    if not joins_cluster() and _missing(ray.cluster_resources(), actors):
        raise ClusterError(_no_room(actors, 0.0))
    group = placement_group(bundles(actors))
    try:
        _wait(
            lambda: group.wait(POLL_S), "room on the cluster for all actors", limit_s, lambda: _no_room(actors, limit_s)
        )
    finally:
        remove_placement_group(group)


def has_room(actors: Sequence[ActorPlan]) -> bool:
    """True if all actors fit on the cluster's nodes together, now."""
    group = placement_group(bundles(actors))
    try:
        return bool(group.wait(5 * POLL_S))
    finally:
        remove_placement_group(group)


def reserve(actors: Sequence[ActorPlan], others: Sequence[ActorPlan], limit_s: float) -> PlacementGroup | None:
    """Room for actors that start now, once there is room for others too, which start later.

    Jobs are admitted one by one. So of two jobs for which the cluster has no room together, one gets all it needs; if
    each had its engines and neither its learners, both would wait forever.

    Args:
        actors: of each kind, in order: their places are the group's bundles.
        others: the learners, which Ray Train places in a group of its own.

    Returns:
        None if the actors reserve nothing.

    Raises:
        ClusterError: as ``wait_for_room``.
    """
    if not bundles(actors):
        return None
    with _admitted(limit_s):
        wait_for_room([*actors, *others], limit_s)
        group = placement_group(bundles(actors))
        _wait_for_group(group, actors, "room for engines and graders", limit_s)
        return group


@contextmanager
def _admitted(limit_s: float) -> Iterator[None]:
    """Only one job of a cluster is inside. The lock is an actor's name, which a job that dies gives back."""
    if not joins_cluster():
        yield
        return
    lock: list[Any] = []

    def take() -> bool:
        try:
            lock.append(ray.remote(_Lock).options(name=_LOCK, namespace=_LOCK, num_cpus=0).remote())
        except ValueError:  # the name is taken
            time.sleep(POLL_S)
        return bool(lock)

    _wait(take, "other jobs that are being placed", limit_s, lambda: _not_admitted(limit_s))
    try:
        yield
    finally:
        ray.kill(lock[0])


class _Lock:
    """Exists while a job is being placed."""


def _wait_for_group(group: PlacementGroup, actors: Sequence[ActorPlan], what: str, limit_s: float) -> None:
    _wait(lambda: bool(group.wait(POLL_S)), what, limit_s, lambda: _no_room(actors, limit_s))


def _wait(is_done: Callable[[], bool], what: str, limit_s: float, error: Callable[[], str]) -> None:
    """Try until it is done, and say every minute what is waited for. Raises ClusterError after ``limit_s``."""
    started = reported = time.monotonic()
    while not is_done():
        now = time.monotonic()
        if now - started >= limit_s:
            raise ClusterError(error())
        if now - reported >= REPORT_EVERY_S:
            report_wait(what, now - started, limit_s)
            reported = now


def _missing(has: dict[str, float], actors: Sequence[ActorPlan]) -> dict[str, float]:
    return {name: need for name, need in needed_resources(actors).items() if has.get(name, 0.0) < need - 1e-6}


def _no_room(actors: Sequence[ActorPlan], limit_s: float) -> str:
    free = ray.available_resources()
    advice = (
        "Lower num_workers, num_cpus, num_gpus or memory_gib of learner, rollout or reward (--dry-run lists them), or "
        "add a node."
    )
    if missing := _missing(free, actors):
        name, amount = next(iter(missing.items()))
        unit, label = (2**30, "GiB of memory") if name == "memory" else (1, f"{name}s")
        return (
            f"the cluster must have {amount / unit:g} {label} free for all actors, got "
            f"{free.get(name, 0.0) / unit:.3g} in {limit_s:g} s. {advice}"
        )
    largest = max(actors, key=lambda actor: (actor.num_gpus, actor.memory_gib, actor.num_cpus))
    return (
        f"every actor must fit on one node, and there is no node left for some in {limit_s:g} s: enough is free, but "
        f"spread over nodes. A {largest.name} needs {largest.num_cpus:g} CPUs, {largest.num_gpus:g} GPUs and "
        f"{largest.memory_gib:g} GiB. {advice}"
    )


def _not_admitted(limit_s: float) -> str:
    return (
        f"other jobs must be placed before this one, and one of them is still waiting for room after {limit_s:g} s. "
        "Stop it, add a node, or raise limits.placement_s."
    )
