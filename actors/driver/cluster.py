"""The Ray cluster a job runs on, and room there for actors that are asked for together."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, get_placement_group, placement_group, remove_placement_group

from actors.calls import REPORT_EVERY_S
from actors.connection import connect, joins_cluster, never_grows
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
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # actors do not use these processes
    connect()
    try:
        yield
    finally:
        ray.shutdown()


def wait_for_room(actors: Sequence[ActorPlan], limit_s: float, held: str | None = None) -> None:
    """Wait until all actors fit on the cluster's nodes together, whoever uses them now. Nothing stays reserved.

    They are asked for in one placement group, which takes all or nothing and shows a growing cluster what is missing.

    Args:
        held: name of a group that holds this room, or has asked for it.

    Raises:
        ClusterError: there is still no room, or a private Ray, which never grows, is too small. Names what is missing.
    """
    if not bundles(actors):
        return
    if never_grows() and _missing(ray.cluster_resources(), actors):
        raise ClusterError(_no_room(actors, 0.0))
    group = _held_group(held) or placement_group(bundles(actors))
    try:
        _wait_for_group(group, actors, "room on the cluster for all actors", limit_s)
    finally:
        remove_placement_group(group)


@contextmanager
def lent_room(actors: Sequence[ActorPlan], limit_s: float, held: str | None) -> Iterator[None]:
    """Within the block, room that is held under a name is free for actors that are placed otherwise, such as Ray
    Train's learners. After the block the driver holds it again, as soon as they are gone. In a trial of a search it
    stays free: a group that the trial asks for while its job is being killed would stay for ever.

    Raises:
        ClusterError: as ``wait_for_room``.
    """
    wait_for_room(actors, limit_s, held)
    try:
        yield
    finally:
        if held and ray.get_runtime_context().get_actor_id() is None:
            placement_group(bundles(actors), name=held)


def give_back(held: str) -> None:
    """Let go of room that is held under a name."""
    if group := _held_group(held):
        remove_placement_group(group)


def _held_group(name: str | None) -> PlacementGroup | None:
    try:
        return get_placement_group(name) if name else None
    except ValueError:  # there is none of this name
        return None


def has_room(actors: Sequence[ActorPlan]) -> bool:
    """True if all actors fit on the cluster's nodes together, now."""
    group = placement_group(bundles(actors))
    try:
        return bool(group.wait(5 * POLL_S))
    finally:
        remove_placement_group(group)


def reserve(
    actors: Sequence[ActorPlan], limit_s: float, others: Sequence[ActorPlan] = (), held: str = ""
) -> PlacementGroup | None:
    """Room for actors that start now, and for others that start later.

    Jobs are admitted one by one, and only if there is room for all of their actors. So of two jobs that do not fit
    together, one gets all it needs. Otherwise each could get its engines and neither its learners, and both would wait.

    Args:
        actors: those that start now, in the order of the group's bundles.
        others: the learners, which Ray Train places in a group of its own: see ``lent_room``.
        held: the name under which the room of the others is held.

    Returns:
        None if the actors reserve nothing.

    Raises:
        ClusterError: as ``wait_for_room``.
    """
    with _admitted(limit_s):
        wait_for_room([*actors, *others], limit_s)
        if others:
            placement_group(bundles(others), name=held)
        if not bundles(actors):
            return None
        group = placement_group(bundles(actors))
        try:
            _wait_for_group(group, actors, "room for engines and graders", limit_s)
        except ClusterError:
            remove_placement_group(group)
            raise
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
        f"every actor must fit on one node, but no node had room for some of them in {limit_s:g} s: enough is free, "
        f"but it is spread over nodes. A {largest.name} needs {largest.num_cpus:g} CPUs, {largest.num_gpus:g} GPUs and "
        f"{largest.memory_gib:g} GiB. {advice}"
    )


def _not_admitted(limit_s: float) -> str:
    return (
        f"other jobs must be placed before this one, and one of them is still waiting for room after {limit_s:g} s. "
        "Stop it, add a node, or raise limits.placement_s."
    )
