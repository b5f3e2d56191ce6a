"""Room on the cluster: asked for together, waited for with a limit, and never held in part."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors import connection, placement
from actors.driver import cluster
from actors.driver.actor_plan import ActorPlan, bundles
from actors.driver.cluster import give_back, has_room, lent_room, reserve, wait_for_room
from actors.placement import PlacementWatch
from pipeline.errors import ClusterError
from tests.support.cluster import free_cpus, wait_until_free


def actors(name: str, count: int, num_cpus: float, memory_gib: float = 0.01) -> ActorPlan:
    return ActorPlan(name, count, num_cpus, 0.0, memory_gib)


def test_every_actor_has_a_bundle_of_its_own():
    plans = [actors("rollout", 2, 0.5, 0.25), ActorPlan("weight store", 1, 0.0, 0.0, 0.0)]
    assert bundles(plans) == [{"CPU": 0.5, "memory": 2**28}] * 2


# With a stand-in for Ray --------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch) -> SimpleNamespace:
    """A cluster of 8 CPUs that has no room for any group. Its clock advances by ten seconds at every look."""
    removed: list[Any] = []
    group = SimpleNamespace(wait=lambda timeout: False)
    free = {"CPU": 8.0, "memory": 2.0**34}
    monkeypatch.setattr(
        cluster, "ray", SimpleNamespace(available_resources=lambda: free, cluster_resources=lambda: free)
    )
    monkeypatch.setattr(cluster, "placement_group", lambda bundles: group)
    monkeypatch.setattr(cluster, "remove_placement_group", removed.append)
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda s: None))
    return SimpleNamespace(removed=removed, group=group, free=free)


def test_a_group_that_no_node_can_hold_is_an_error_that_says_so(full):
    with pytest.raises(ClusterError, match=r"spread over nodes. A learner needs 2 CPUs, 0 GPUs and 0.01 GiB. Lower"):
        wait_for_room([actors("rollout", 1, 1), actors("learner", 2, 2)], 30.0)
    assert full.removed == [full.group]


def test_what_is_missing_is_named(full, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ClusterError, match=r"must have 9 CPUs free for all actors, got 8 in 30 s\. Lower"):
        wait_for_room([actors("learner", 3, 3)], 30.0)


def test_a_private_ray_never_grows_so_nothing_is_waited_for(full, monkeypatch):
    monkeypatch.setenv(connection.PRIVATE, "1")
    with pytest.raises(ClusterError, match="must have 9 CPUs free for all actors, got 8 in 0 s"):
        wait_for_room([actors("learner", 3, 3)], 1e9)


def test_a_wait_for_room_reaches_the_console(full, monkeypatch, capsys):
    with pytest.raises(ClusterError):
        wait_for_room([actors("learner", 2, 2)], 100.0)
    assert "waiting 60 s for room on the cluster for all actors (limit 100 s)" in capsys.readouterr().out


def test_engines_whose_node_is_lost_have_a_limit_too(monkeypatch, capsys):
    states = iter(["CREATED", "RESCHEDULING", "CREATED", "RESCHEDULING", "RESCHEDULING"])
    monkeypatch.setattr(placement, "placement_group_table", lambda group: {"state": next(states)})
    clock = iter(range(0, 1000, 60))
    monkeypatch.setattr(placement, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    watch = PlacementWatch("group", 100.0)
    for _ in range(4):
        watch()
    assert "whose node was lost" in capsys.readouterr().out
    with pytest.raises(ClusterError, match="got no node for some in 100 s: a node was lost"):
        watch()


# On a real Ray -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_two_jobs_one_gets_all_it_needs_and_the_other_holds_nothing(ray_address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    size = free_cpus() / 3  # engines and learners of one job take two thirds
    engines, learners = [actors("rollout", 1, size)], [actors("learner", 1, size)]
    free = free_cpus()
    first = reserve(engines, 60.0, learners, "learners of the first")
    assert first is not None
    for _ in range(2):  # a stage after the other
        wait_until_free(free - 2 * size)
        with pytest.raises(ClusterError, match="CPUs free for all actors"):
            reserve(engines, 3.0, learners, "learners of the second")  # its engines alone would fit
        wait_until_free(free - 2 * size)  # it holds nothing
        with lent_room(learners, 60.0, "learners of the first"):
            wait_until_free(free - size)
            learning = ray.util.placement_group(bundles(learners))  # as Ray Train asks for it
            assert learning.wait(60)
            ray.util.remove_placement_group(learning)
    ray.util.remove_placement_group(first)
    give_back("learners of the first")
    wait_for_room([*engines, *learners], 60.0)
    assert has_room(engines)


@pytest.mark.slow
def test_a_job_waits_until_the_one_before_it_is_placed(ray_address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    order: list[str] = []
    with cluster._admitted(60.0):
        thread = threading.Thread(target=lambda: _enter(order), daemon=True)
        thread.start()
        time.sleep(2)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    with cluster._admitted(60.0), pytest.raises(ClusterError, match="other jobs must be placed before this one"):
        cluster._admitted(0.0).__enter__()


def _enter(order: list[str]) -> None:
    with cluster._admitted(60.0):
        order.append("second")


def test_a_cluster_that_refuses_us_is_one_message_that_says_what_to_do(monkeypatch):
    def refuse(**options: Any) -> None:
        raise ConnectionError("Missing authentication token")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(connection, "ray", SimpleNamespace(init=refuse))
    with pytest.raises(ClusterError, match=r"10\.0\.0\.1:6379: Missing authentication token\. .*RAY_AUTH_MODE=token"):
        connection.connect()
