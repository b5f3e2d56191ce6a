"""Wall-clock seconds per phase of a training step."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

PHASES: dict[str, tuple[str, ...]] = {
    "sft": ("learner",),
    "memory_sft": ("learner",),
    "router": ("learner",),
    "grpo": ("rollout", "reward", "learner", "weight_sync"),
}
"""Timed phases of a training step, by stage kind."""


class PhaseClock:
    """Seconds per phase of a step, with nothing left out: a lap ends where the next one starts."""

    def __init__(self, at_end: Callable[[str], None] = lambda phase: None) -> None:
        """
        Args:
            at_end: called with every phase that ends without an error.
        """
        self._at_end = at_end
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start
        self._at_end(phase)

    def lap(self, phases: Sequence[str]) -> dict[str, float]:
        """``<phase>_s`` for each phase, ``other_s`` and ``step_s``; then starts the next lap.

        Checkpoints and evaluations are kept apart: they are in neither ``other_s`` nor ``step_s``.
        """
        now = time.perf_counter()
        checkpoint = self._seconds.pop("checkpoint", 0.0)
        total = now - self._start - checkpoint - self._seconds.pop("evaluation", 0.0)
        row = {f"{phase}_s": self._seconds.get(phase, 0.0) for phase in phases}
        row |= {"other_s": total - sum(self._seconds.values()), "step_s": total, "checkpoint_s": checkpoint}
        self._start, self._seconds = now, {}
        return row
