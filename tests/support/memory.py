"""A device's memory that exists only in a test."""

from pipeline.models.allocators import Reading

GIB = 2**30


def reading(allocated: float, reserved: float, peak: float, used: float) -> Reading:
    """In GiB, on a device of 10 GiB."""
    return Reading(int(allocated * GIB), int(reserved * GIB), int(peak * GIB), int(used * GIB), 10 * GIB)


class FakeAllocator:
    """Answers with the given readings in order; the last one again and again."""

    def __init__(self, *readings: dict[str, Reading]) -> None:
        self._readings, self.num_releases = list(readings), 0

    def read(self) -> dict[str, Reading]:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]

    def release(self) -> None:
        self.num_releases += 1
