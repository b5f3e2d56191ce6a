"""The memory monitor on a real allocator: it sees a tensor, and memory that was freed goes back to the device."""

import gc
import time

import pytest
import torch

from pipeline.models.allocators import allocator_of
from pipeline.runs import memory_monitor
from pipeline.runs.memory_monitor import MemoryMonitor

SIZE = 2**28
GIB = 2**30


@pytest.fixture
def notices(monkeypatch, device) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(memory_monitor, "notify", texts.append)
    gc.collect()  # models of other tests
    allocator_of(device).release()
    return texts


def test_a_tensor_is_in_the_figures_and_its_memory_is_released(device, notices):
    anchor = torch.ones(1, device=device)  # a GPU that the process does not use is left out
    allocator = allocator_of(device)
    allocator.read()  # on a GPU a new peak starts here
    monitor = MemoryMonitor(allocator, "sft", None)
    monitor.at("model_loaded")
    tensor = torch.ones(SIZE, dtype=torch.uint8, device=device)
    monitor.at("backward")
    del tensor
    monitor.at("learner")
    allocator.release()
    monitor.at("checkpoint")
    loaded, backward, learner, checkpoint = monitor.points.values()
    gained = pytest.approx(SIZE / GIB, rel=0.05)
    assert backward["allocated_gib"] - loaded["allocated_gib"] == gained
    assert backward["reserved_gib"] - loaded["reserved_gib"] == gained
    assert backward["allocated_gib"] - learner["allocated_gib"] == gained
    assert backward["reserved_gib"] - checkpoint["reserved_gib"] == gained
    assert learner["peak_gib"] > 0.99 * backward["allocated_gib"]  # freed, but not forgotten
    if device.type == "cuda":
        assert learner["reserved_gib"] == backward["reserved_gib"]  # kept in the cache until it is released
        assert monitor.peak_gib == backward["peak_gib"] and checkpoint["peak_gib"] < learner["peak_gib"]
    assert all(0 < figures["used_frac"] < 1 for figures in monitor.points.values())
    assert anchor.item() == 1 and not notices


def test_a_full_device_is_relieved(device, notices):
    """With a threshold so low that every device counts as full."""
    anchor = torch.ones(1, device=device)
    torch.ones(SIZE, dtype=torch.uint8, device=device)  # freed at once; a GPU's allocator keeps its memory
    monitor = MemoryMonitor(allocator_of(device), "sft", 1e-6)
    monitor.at("learner")
    monitor.at("learner")
    if device.type == "cuda":
        assert monitor.lap()["memory/released_gib"] == pytest.approx(SIZE / GIB, rel=0.05)
    assert len(notices) == 1 and anchor.device.type in notices[0]


def test_a_point_takes_less_than_a_millisecond(device, notices):
    anchor, times = torch.ones(1, device=device), []
    monitor = MemoryMonitor(allocator_of(device), "sft", None)
    for _ in range(51):
        start = time.perf_counter()
        monitor.at("backward")
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 1e-3 and anchor.item() == 1
