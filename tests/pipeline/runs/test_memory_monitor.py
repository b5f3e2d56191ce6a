"""The memory monitor on a fake allocator. One GiB of 10 is 10 % of a device."""

import time
from collections.abc import Sequence

import pytest

from pipeline.runs import memory_monitor
from pipeline.runs.memory_monitor import RELEASE_EVERY_S, MemoryMonitor
from tests.support.memory import GIB, FakeAllocator, reading


@pytest.fixture
def notices(monkeypatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(memory_monitor, "notify", texts.append)
    monkeypatch.setattr(memory_monitor, "resident_bytes", lambda: 3 * GIB)
    return texts


def watch(allocator: FakeAllocator, points: Sequence[str], threshold: float | None = 0.9) -> MemoryMonitor:
    monitor = MemoryMonitor(allocator, "rl", threshold)
    for point in points:
        monitor.at(point)
    return monitor


def test_a_step_has_the_highest_of_its_points_and_a_point_the_highest_of_the_stage(notices):
    steps = [(2, 4, 3, 5), (4, 5, 6, 6), (1, 5, 5, 5.5), (3, 3, 3, 4)]
    monitor = watch(FakeAllocator(*({"cuda:0": reading(*each)} for each in steps)), ["backward", "learner"])
    step = {"allocated_gib": 4, "reserved_gib": 5, "peak_gib": 6, "used_frac": 0.6, "rss_gib": 3}
    assert monitor.lap() == {f"memory/{name}": value for name, value in step.items()}
    monitor.at("backward")
    monitor.at("learner")
    assert monitor.lap()["memory/peak_gib"] == 5  # of the second step alone
    assert monitor.points == {
        "backward": {"allocated_gib": 2, "reserved_gib": 5, "peak_gib": 5, "used_frac": 0.55, "rss_gib": 3},
        "learner": step,
    }
    assert monitor.peak_gib == 6 and not monitor.lap() and not notices


def test_devices_have_figures_of_their_own(notices):
    devices = {"cuda:0": reading(1, 2, 1.5, 3), "cuda:3": reading(4, 5, 4.5, 6)}
    metrics = watch(FakeAllocator(devices), ["backward"]).lap()
    assert metrics == {
        "memory/0/allocated_gib": 1,
        "memory/0/reserved_gib": 2,
        "memory/0/peak_gib": 1.5,
        "memory/0/used_frac": 0.3,
        "memory/3/allocated_gib": 4,
        "memory/3/reserved_gib": 5,
        "memory/3/peak_gib": 4.5,
        "memory/3/used_frac": 0.6,
        "memory/rss_gib": 3,
    }


def test_above_the_threshold_the_cache_is_released_and_one_notice_says_what_to_do(notices):
    full, freed = {"cuda:0": reading(5, 8.5, 8, 9.5)}, {"cuda:0": reading(5, 6, 5, 7)}
    allocator = FakeAllocator(full, freed, full)
    monitor = watch(allocator, ["backward", "learner", "backward"])
    assert allocator.num_releases == 1 and monitor.lap()["memory/released_gib"] == 2.5
    assert monitor.points["backward"]["released_gib"] == 2.5 and "released_gib" not in monitor.points["learner"]
    assert notices == [
        "stage rl: cuda:0 is 95% full after backward: 9.50 of 10.00 GiB are in use, by this process 5.00 GiB "
        "allocated, 8.50 reserved (peak 8.00). 2.50 GiB of cache were released. Lower "
        "learner.tokens_per_micro_batch to need less"
    ]


def test_a_full_device_releases_again_after_a_while_but_warns_once(notices, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    allocator = FakeAllocator({"cuda:0": reading(5, 8, 8, 9.5)})
    monitor = watch(allocator, ["backward"])
    now[0] += RELEASE_EVERY_S - 1
    monitor.at("backward")
    assert allocator.num_releases == 1
    now[0] += 2
    monitor.at("backward")
    assert allocator.num_releases == 2 and len(notices) == 1


def test_the_fullest_of_several_devices_counts(notices):
    allocator = FakeAllocator({"cuda:0": reading(1, 2, 2, 3), "cuda:1": reading(8, 9, 9, 9.2)})
    watch(allocator, ["learner"])
    assert allocator.num_releases == 1 and notices[0].startswith("stage rl: cuda:1 is 92% full after learner")


@pytest.mark.parametrize(("used", "threshold"), [(9.0, 0.9), (9.9, None), (9.9, 1.0)])
def test_up_to_the_threshold_nothing_happens(notices, used, threshold):
    allocator = FakeAllocator({"cuda:0": reading(5, 8, 8, used)})
    metrics = watch(allocator, ["backward"], threshold).lap()
    assert not allocator.num_releases and not notices and metrics["memory/used_frac"] == pytest.approx(used / 10)


def test_a_device_that_does_not_count_its_peak_has_the_highest_that_was_seen(notices):
    """As on MPS: the peak of a reading is what is allocated then."""
    readings = [{"mps": reading(allocated, 7, allocated, 7)} for allocated in (2, 6, 3)]
    monitor = watch(FakeAllocator(*readings), ["rollout", "backward", "learner"])
    assert monitor.peak_gib == 6 and monitor.lap()["memory/peak_gib"] == 6


def test_before_a_device_is_used_only_the_process_is_measured(notices):
    monitor = watch(FakeAllocator({}), ["model_loaded"])
    assert monitor.lap() == {"memory/rss_gib": 3} and monitor.peak_gib == 0
