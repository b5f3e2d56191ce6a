"""The interface of a tracker, and the data it gets."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeline.config import TrackingConfig
from pipeline.files import write_atomic


class Point(NamedTuple):
    """The numbers of one step."""

    values: dict[str, float]
    step: int
    time_s: float
    """Unix time at the end of the step."""


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker is opened for."""

    settings: TrackingConfig
    directory: Path
    """``metrics/`` of the run directory. A tracker writes nowhere else."""
    name: str
    config: dict[str, Any]
    """The run's settings, as in experiment_config.json."""
    past: list[Point]
    """Steps made so far, if the run is resumed or its next stage starts."""

    def id(self) -> str:
        """The run's id in every tracker. Kept in a file, because names of run directories are not unique."""
        path = self.directory / "run_id"
        if not path.exists():
            write_atomic(path, secrets.token_hex(8).encode())
        return path.read_text()


class Tracker(Protocol):
    """One backend, open for one run. Any method may raise: Trackers warns and continues without it."""

    def log(self, point: Point) -> None: ...

    def close(self) -> None: ...
