"""Where metrics go besides ``metrics.jsonl``: TensorBoard, W&B, SwanLab, MLflow. docs/tracking.md.

A tracker is told the run's settings and the numbers of every step, and nothing else about the machine, the code
or the environment. Keys are read by the libraries themselves, from the environment or from where their own login
put them; nothing here takes one. Without ``tracking.online`` nothing leaves the machine.
"""

import importlib
import json
import logging
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeline.config import TrackingConfig
from pipeline.errors import ConfigError
from pipeline.files import write_atomic

logger = logging.getLogger(__name__)

_LIBRARIES = {
    "tensorboard": ["tensorboardX"],
    "wandb": ["wandb"],
    "swanlab": ["swanlab"],
    "mlflow": ["mlflow", "sqlalchemy", "alembic"],
}
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # training waits for a server that is gone: by default for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_ERROR_REPORTING": "false",
}


class Point(NamedTuple):
    """The numbers of one step."""

    values: dict[str, float]
    step: int
    time_s: float
    """Unix time at the end of the step."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is opened with."""

    settings: TrackingConfig
    directory: Path
    """Where it may write: ``metrics/`` of the run directory."""
    name: str
    config: dict[str, Any]
    """The run's settings, as in experiment_config.json."""
    past: list[Point]
    """Steps that are done, when a run is resumed or its next stage starts."""

    def id(self) -> str:
        """The run's name in every tracker. Kept in a file: names of run directories are not unique."""
        path = self.directory / "run_id"
        if not path.exists():
            write_atomic(path, secrets.token_hex(8).encode())
        return path.read_text()


class Tracker(Protocol):
    """What may raise: Trackers warns and goes on without it."""

    def log(self, point: Point) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files. TensorBoard hides what an earlier attempt wrote for the steps that are repeated."""

    def __init__(self, run: TrackedRun) -> None:
        from tensorboardX import SummaryWriter

        last_step = max((point.step for point in run.past), default=0)
        suffix = f".{os.getpid()}.{last_step}"  # keeps two attempts within one second from sharing a file
        directory = str(run.directory / "tensorboard")
        self._board = SummaryWriter(directory, purge_step=last_step + 1, filename_suffix=suffix)

    def log(self, point: Point) -> None:
        for key, value in point.values.items():
            self._board.add_scalar(key, value, point.step, walltime=point.time_s)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class WandB:
    """Offline it cannot go on with a run: each attempt's directory holds all steps, and the newest is whole."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        quiet = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            finish_timeout=60,
            init_timeout=60,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,  # it holds the command line
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=run.settings.project,
            name=run.name,
            id=run.id(),
            resume="allow" if run.settings.online else None,
            config=run.config,
            allow_val_change=True,
            mode="online" if run.settings.online else "offline",
            dir=run.directory,
            reinit="create_new",
            settings=quiet,
        )
        _replay_offline(self, run)

    def log(self, point: Point) -> None:
        self._run.log(point.values | {"_timestamp": point.time_s}, step=point.step)

    def close(self) -> None:
        self._run.finish()


class SwanLab:
    """Offline like WandB. Steps are shown at the time they were logged: it takes no other."""

    def __init__(self, run: TrackedRun) -> None:
        import swanlab

        nothing = swanlab.Settings.Probe(
            hardware=False, runtime=False, requirements=False, git=False, swanlab=False, monitor=False
        )
        quiet = swanlab.Settings(
            interactive=False, probe=nothing, terminal=swanlab.Settings.Terminal(proxy_type="none")
        )
        self._run = swanlab.init(
            project=run.settings.project,
            name=run.name,
            id=run.id(),
            resume="allow",
            config=run.config,
            mode="online" if run.settings.online else "offline",
            log_dir=str(run.directory / "swanlab"),
            reinit=True,
            settings=quiet,
        )
        _replay_offline(self, run)

    def log(self, point: Point) -> None:
        self._run.log(point.values, step=point.step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """Goes on with the run that has its id as a tag, and logs what is missing there."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        directory = run.directory / "mlflow"
        directory.mkdir(parents=True, exist_ok=True)
        uri = run.settings.mlflow_uri
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{directory.resolve() / 'mlflow.db'}")
        artifacts = None if uri else directory.resolve().as_uri()
        self._run_id, self._last_step = self._find(run) or (self._create(run, artifacts), 0)
        for point in run.past:
            self.log(point)

    def _find(self, run: TrackedRun) -> tuple[str, int] | None:
        experiment = self._client.get_experiment_by_name(run.settings.project)
        if experiment is None:
            return None
        found = self._client.search_runs([experiment.experiment_id], f"tags.`gradus.id` = '{run.id()}'")
        if not found:
            return None
        self._client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id, int(found[0].data.tags.get("gradus.step", 0))

    def _create(self, run: TrackedRun, artifacts: str | None) -> str:
        from mlflow.entities import Param

        experiment = self._client.get_experiment_by_name(run.settings.project)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(run.settings.project, artifacts)
        )
        run_id = self._client.create_run(experiment_id, run_name=run.name, tags={"gradus.id": run.id()}).info.run_id
        params = [Param(key, value[:6000]) for key, value in _flat(run.config).items()]
        for start in range(0, len(params), 100):  # 100 at a time and 6000 characters are its limits
            self._client.log_batch(run_id, params=params[start : start + 100])
        return run_id

    def log(self, point: Point) -> None:
        from mlflow.entities import Metric, RunTag

        if point.step <= self._last_step:
            return
        metrics = [Metric(key, value, int(point.time_s * 1000), point.step) for key, value in point.values.items()]
        self._client.log_batch(self._run_id, metrics=metrics, tags=[RunTag("gradus.step", str(point.step))])
        self._last_step = point.step

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


BACKENDS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "swanlab": SwanLab,
    "mlflow": MLflow,
}


class Trackers:
    """The chosen ones. One that fails is left out from then on, with one warning: training goes on."""

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
    """Raises ConfigError when the library of a chosen backend is missing."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for backend in settings.backends:
        for library in _LIBRARIES[backend]:
            try:
                file = importlib.import_module(library).__file__
            except ImportError:
                file = None
            if file is None:  # a directory of that name, such as W&B's own, can be imported too
                raise ConfigError(
                    f'tracking.backends: {backend} needs the {library} library. Run `pip install "gradus[{backend}]"`.'
                )


def _replay_offline(tracker: Tracker, run: TrackedRun) -> None:
    if not run.settings.online:
        for point in run.past:
            tracker.log(point)


def _warn(name: str, error: Exception) -> None:
    lines = _without_secrets(str(error)).strip().splitlines() or [""]
    logger.warning("%s is off from here on, training goes on: %s: %s", name, type(error).__name__, lines[0][:300])


def _without_secrets(message: str) -> str:
    for name, value in os.environ.items():
        if len(value) > 5 and re.search("KEY|TOKEN|SECRET|PASSWORD", name, re.IGNORECASE):
            message = message.replace(value, f"${name}")
    return re.sub(r"://[^/\s@]*@", "://", message)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Texts by dotted key. Lists stay together, as JSON."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
