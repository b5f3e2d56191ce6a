"""Trackers that get metrics besides ``metrics.jsonl``: TensorBoard, W&B, SwanLab, MLflow. docs/tracking.md.

A tracker gets the run's settings and the numbers of every step, and nothing else about the machine, the code or the
environment. The libraries read keys themselves, from the environment or from the files of their own login; nothing
here handles one. Without ``tracking.online`` nothing leaves the machine.
"""

import importlib
import logging
import os
import re

from pipeline.config import TrackingConfig
from pipeline.errors import ConfigError
from pipeline.runs.trackers.backends import BACKENDS, LIBRARIES
from pipeline.runs.trackers.base import Point, TrackedRun, Tracker

__all__ = ["Point", "TrackedRun", "Tracker", "Trackers", "check_trackers"]

logger = logging.getLogger(__name__)

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default training would wait minutes for a server that is gone
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_ERROR_REPORTING": "false",
}


class Trackers:
    """The chosen trackers. One that fails is dropped with one warning; training continues."""

    def __init__(self, run: TrackedRun) -> None:
        check_trackers(run.settings)
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(run.settings.backends):
            try:
                self._open[name] = BACKENDS[name](run)
            except Exception as error:
                _warn(name, error)

    def log(self, point: Point) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(point)
            except Exception as error:
                _warn(name, error)
                del self._open[name]

    def close(self) -> None:
        for name, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:
                _warn(name, error)
        self._open = {}


def check_trackers(settings: TrackingConfig) -> None:
    """Raises ConfigError if the library of a chosen backend is missing."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for backend in settings.backends:
        for library in LIBRARIES[backend]:
            try:
                file = importlib.import_module(library).__file__
            except ImportError:
                file = None
            if file is None:  # a directory of that name, such as W&B's output, can be imported too
                raise ConfigError(
                    f'tracking.backends: {backend} needs the {library} library. Run `pip install "gradus[{backend}]"`.'
                )


def _warn(name: str, error: Exception) -> None:
    lines = _without_secrets(str(error)).strip().splitlines() or [""]
    logger.warning("%s is off from now on, training continues: %s: %s", name, type(error).__name__, lines[0][:300])


def _without_secrets(message: str) -> str:
    for name, value in os.environ.items():
        if len(value) > 5 and re.search("KEY|TOKEN|SECRET|PASSWORD", name, re.IGNORECASE):
            message = message.replace(value, f"${name}")
    return re.sub(r"://[^/\s@]*@", "://", message)
