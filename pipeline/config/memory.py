"""The memory monitor of the learners."""

from pydantic import Field

from pipeline.config.base import StrictModel


class MemoryConfig(StrictModel):
    """Learners measure their memory at named points of every stage. docs/metrics.md."""

    release_above_frac: float | None = Field(0.9, gt=0, le=1)
    """Share of a device's memory, used by all processes, above which a learner warns and releases its cache. On a CPU:
    of the memory of the machine or its container. None: measure only."""
