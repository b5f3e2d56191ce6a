"""Allocators of the three kinds of devices. Only the CPU's is real; the others are stand-ins."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray
import torch

from pipeline.models.allocators import (
    CpuAllocator,
    CudaAllocator,
    MpsAllocator,
    Reading,
    allocator_of,
    machine_memory,
    resident_bytes,
)


def gpu_stats(allocated: int, reserved: int, peak: int) -> dict:
    return {
        "allocated_bytes": {"all": {"current": allocated, "peak": peak}},
        "reserved_bytes": {"all": {"current": reserved, "peak": 999}},
    }


def test_all_gpus_that_this_process_uses_are_read_and_start_a_new_peak(monkeypatch):
    stats = {0: gpu_stats(30, 50, 45), 1: gpu_stats(0, 0, 0), 2: gpu_stats(5, 8, 6)}
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", stats.get)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda index: calls.append(f"reset {index}"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (20 + index, 100))  # free, total
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("released"))
    allocator = CudaAllocator()
    assert allocator.read() == {"cuda:0": Reading(30, 50, 45, 80, 100), "cuda:2": Reading(5, 8, 6, 78, 100)}
    assert calls == ["reset 0", "reset 2"]  # GPU 1 is not asked for its free memory either
    allocator.release()
    assert calls[2:] == ["released"]


def test_before_cuda_is_used_there_is_nothing_to_read(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda index: {})
    assert CudaAllocator().read() == {}


def test_mps_has_no_peak_and_knows_only_this_process(monkeypatch):
    released: list[bool] = []
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 30)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 60)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 80)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: released.append(True))
    allocator = allocator_of(torch.device("mps"))
    assert isinstance(allocator, MpsAllocator)
    (reading,) = allocator.read().values()
    assert reading == Reading(allocated=30, reserved=60, peak=30, used=60, total=80) and reading.used_frac == 0.75
    allocator.release()
    assert released == [True]


def test_this_process_has_plausible_figures():
    (reading,) = allocator_of(torch.device("cpu")).read().values()
    assert 2**25 < reading.allocated == reading.reserved <= reading.peak < 2**36
    assert 0 < reading.used < reading.total <= psutil.virtual_memory().total


def test_a_tensor_raises_resident_memory_and_its_peak():
    allocator = CpuAllocator()
    before = allocator.read()["cpu"]
    tensor = torch.ones(2**27, dtype=torch.uint8)
    after = allocator.read()["cpu"]
    assert after.allocated - before.allocated == pytest.approx(2**27, rel=0.1) and after.peak >= after.allocated
    del tensor
    allocator.release()
    assert resident_bytes() - before.allocated < 2**25
    assert allocator.read()["cpu"].peak > 0.99 * after.allocated  # the system's count lags behind a little


CHURN = """
import torch
from pipeline.models.allocators import CpuAllocator, resident_bytes
start = resident_bytes()
tensors = [torch.ones(2**16, dtype=torch.uint8) for _ in range(4096)]  # 256 MiB in small parts
full = resident_bytes()
last = tensors[-1]  # at the top of the heap
del tensors
kept = resident_bytes()
CpuAllocator().release()
print(full - start, kept - start, resident_bytes() - start)
"""


@pytest.mark.slow
@pytest.mark.parametrize("preloads", [True, False], ids=["jemalloc", "C library"])
def test_freed_memory_that_is_kept_goes_back_to_the_system(preloads):
    jemalloc = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    if not sys.platform.startswith("linux") or (preloads and not jemalloc.exists()):
        pytest.skip("needs glibc, or the jemalloc of Ray")
    keeping = "oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:-1"
    added = {"LD_PRELOAD": str(jemalloc), "MALLOC_CONF": keeping} if preloads else {}
    done = subprocess.run(
        [sys.executable, "-c", CHURN], env=os.environ | added, capture_output=True, text=True, timeout=60, check=True
    )
    full, kept, left = (int(size) / 2**20 for size in done.stdout.split())
    assert full > 250 and kept > 200 and left < 50, done.stdout


@pytest.mark.parametrize(
    ("limit", "current", "cached"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_container_has_its_own_limit(tmp_path, limit, current, cached):
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("1000000\n")
    (tmp_path / current).write_text("700000\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 600000\n{cached} 90000\n")
    assert machine_memory(tmp_path) == (610_000, 1_000_000)


@pytest.mark.parametrize("text", ["max", str(2**63 - 4096)])
def test_without_a_limit_it_is_the_machine_that_counts(tmp_path, text):
    (tmp_path / "memory.max").write_text(text)
    used, total = machine_memory(tmp_path)
    assert 0 < used < total == psutil.virtual_memory().total
