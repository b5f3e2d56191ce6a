"""Measures a learner's memory at named points of a stage, and acts when a device is nearly full."""

import gc
import math
import time

from pipeline.models.allocators import Allocator, Reading, resident_bytes
from pipeline.runs.notices import notify

RELEASE_EVERY_S = 60.0
"""Shortest time between two releases. Released memory has to be requested again, which takes time."""

Figures = dict[str, float]
"""``allocated_gib``, ``reserved_gib``, ``peak_gib``, ``used_frac``, ``rss_gib``; where memory was released also
``released_gib``. With several devices, those of a device have its number before them: ``1/allocated_gib``."""


class MemoryMonitor:
    """Keeps the highest figures of every point and of every step.

    Args:
        stage: its name, for the notice.
        release_above_frac: share of a device in use above which its cache is released. None: never.
    """

    def __init__(self, allocator: Allocator, stage: str, release_above_frac: float | None) -> None:
        self._allocator, self._stage = allocator, stage
        self._threshold = math.inf if release_above_frac is None else release_above_frac
        self._step: Figures = {}
        self._has_warned, self._last_release = False, -math.inf
        self.points: dict[str, Figures] = {}
        """Highest figures of the stage so far, by point."""
        self.peak_gib = 0.0
        """Peak of the fullest device so far."""

    def at(self, point: str) -> None:
        """Measure. The point is a phase of the clock that has just ended, or has a name of its own."""
        readings = self._allocator.read()
        figures = _figures(readings)
        self._count(point, figures)
        self.peak_gib = max([self.peak_gib, *(reading.peak / 2**30 for reading in readings.values())])
        full = next((device for device, each in readings.items() if each.used_frac > self._threshold), None)
        if full is not None:
            self._relieve(point, full, readings)

    def lap(self) -> dict[str, float]:
        """Metrics ``memory/*`` of the points since the last lap."""
        figures, self._step = self._step, {}
        return {f"memory/{name}": value for name, value in figures.items()}

    def _count(self, point: str, figures: Figures) -> None:
        for highest in (self._step, self.points.setdefault(point, {})):
            highest |= {name: max(value, highest.get(name, value)) for name, value in figures.items()}

    def _relieve(self, point: str, device: str, readings: dict[str, Reading]) -> None:
        """Release the cache, unless that was done a moment ago, and warn once a stage."""
        now = time.monotonic()
        if now - self._last_release < RELEASE_EVERY_S:
            return
        self._last_release = now
        gc.collect()  # tensors in reference cycles
        self._allocator.release()
        left = self._allocator.read()
        released = max(0, _reserved(readings) - _reserved(left))
        self._count(point, {"released_gib": released / 2**30})
        if not self._has_warned:
            self._has_warned = True
            notify(_warning(self._stage, point, device, readings[device], released))


def _reserved(readings: dict[str, Reading]) -> int:
    return sum(reading.reserved for reading in readings.values())


def _figures(readings: dict[str, Reading]) -> Figures:
    figures: Figures = {}
    for device, reading in readings.items():
        prefix = f"{device.partition(':')[2]}/" if len(readings) > 1 else ""
        for name in ("allocated", "reserved", "peak"):
            figures[f"{prefix}{name}_gib"] = getattr(reading, name) / 2**30
        figures[f"{prefix}used_frac"] = reading.used_frac
    return figures | {"rss_gib": resident_bytes() / 2**30}


def _warning(stage: str, point: str, device: str, reading: Reading, released: int) -> str:
    own = f"{reading.allocated / 2**30:.2f} GiB allocated, {reading.reserved / 2**30:.2f} reserved"
    return (
        f"stage {stage}: {device} is {reading.used_frac:.0%} full after {point}: {reading.used / 2**30:.2f} of "
        f"{reading.total / 2**30:.2f} GiB are in use, by this process {own} (peak {reading.peak / 2**30:.2f}). "
        f"{released / 2**30:.2f} GiB of cache were released. Lower learner.tokens_per_micro_batch to need less"
    )
