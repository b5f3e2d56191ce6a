"""Memory of this process on its devices, as their allocators count it."""

import ctypes
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import torch

_PURGE_ALL = b"arena.4096.purge"
"""4096 is jemalloc's MALLCTL_ARENAS_ALL."""


@dataclass(frozen=True)
class Reading:
    """Bytes on one device."""

    allocated: int
    """Held by tensors of this process. On a CPU: resident memory of the process."""
    reserved: int
    """Held by the allocator of this process: tensors, and a cache of freed memory. On a CPU: as ``allocated``."""
    peak: int
    """Highest ``allocated`` since the last reading. MPS does not count it: as ``allocated``. CPU: since the process
    started."""
    used: int
    """In use by all processes. MPS: by this process."""
    total: int
    """Bytes that can be used."""

    @property
    def used_frac(self) -> float:
        return self.used / self.total


class Allocator(Protocol):
    """The memory of one kind of device."""

    def read(self) -> dict[str, Reading]:
        """Memory in use by this process, by torch's name of the device. Starts a new peak where there is a counter."""

    def release(self) -> None:
        """Give cached memory back to the device."""


class CudaAllocator:
    """All visible GPUs on which this process holds memory."""

    def read(self) -> dict[str, Reading]:
        readings = {f"cuda:{index}": _read_gpu(index) for index in range(torch.cuda.device_count())}
        return {device: reading for device, reading in readings.items() if reading}

    def release(self) -> None:
        torch.cuda.empty_cache()


def _read_gpu(index: int) -> Reading | None:
    """None if this process holds no memory there: to ask the driver would set up a context on such a GPU."""
    stats = torch.cuda.memory_stats_as_nested_dict(index)  # {} until CUDA is used
    if not stats or not stats["reserved_bytes"]["all"]["current"]:
        return None
    torch.cuda.reset_peak_memory_stats(index)
    free, total = torch.cuda.mem_get_info(index)
    allocated, reserved = stats["allocated_bytes"]["all"], stats["reserved_bytes"]["all"]
    return Reading(allocated["current"], reserved["current"], allocated["peak"], total - free, total)


class MpsAllocator:
    """The GPU of a Mac, which shares the machine's memory."""

    def read(self) -> dict[str, Reading]:
        allocated, reserved = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
        return {"mps": Reading(allocated, reserved, allocated, reserved, torch.mps.recommended_max_memory())}

    def release(self) -> None:
        torch.mps.empty_cache()


class CpuAllocator:
    """The machine's memory."""

    def read(self) -> dict[str, Reading]:
        rss = resident_bytes()
        peak = max(rss, _peak_resident_bytes())  # the system's count may lag behind a little
        return {"cpu": Reading(rss, rss, peak, *machine_memory())}

    def release(self) -> None:
        """Have jemalloc, which CPU learners preload, or else the C library return freed pages to the system."""
        library = ctypes.CDLL(None)
        if hasattr(library, "mallctl"):
            library.mallctl(_PURGE_ALL, None, None, None, ctypes.c_size_t(0))
        elif hasattr(library, "malloc_trim"):
            library.malloc_trim(ctypes.c_size_t(0))


def allocator_of(device: torch.device) -> Allocator:
    allocators: dict[str, type[Allocator]] = {"cuda": CudaAllocator, "mps": MpsAllocator, "cpu": CpuAllocator}
    return allocators[device.type]()


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def _peak_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Bytes in use and in total: of the container if it has a limit, otherwise of the machine. Memory that the system
    takes back when it is needed, such as cached files, is not in use."""
    machine = psutil.virtual_memory()
    for limit, current, cached in (
        ("memory.max", "memory.current", "inactive_file"),  # version 2 of control groups
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        path = cgroups / limit
        if path.is_file() and (text := path.read_text().strip()) != "max" and int(text) < machine.total:
            stat = dict(line.split() for line in (path.parent / "memory.stat").read_text().splitlines())
            return int((cgroups / current).read_text()) - int(stat.get(cached, 0)), int(text)
    return machine.total - machine.available, machine.total
