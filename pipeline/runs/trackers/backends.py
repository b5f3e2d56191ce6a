"""One class per tracking backend. To add one, write a Tracker and name it in BACKENDS and LIBRARIES."""

import json
import os
from collections.abc import Callable
from typing import Any

from pipeline.runs.trackers.base import Point, TrackedRun, Tracker


class TensorBoard:
    """Event files. TensorBoard hides what an earlier attempt wrote for steps that are repeated."""

    def __init__(self, run: TrackedRun) -> None:
        from tensorboardX import SummaryWriter

        last_step = max((point.step for point in run.past), default=0)
        suffix = f".{os.getpid()}.{last_step}"  # two attempts within one second must not share a file
        directory = str(run.directory / "tensorboard")
        self._board = SummaryWriter(directory, purge_step=last_step + 1, filename_suffix=suffix)

    def log(self, point: Point) -> None:
        for key, value in point.values.items():
            self._board.add_scalar(key, value, point.step, walltime=point.time_s)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class WandB:
    """Offline it cannot continue a run: each attempt writes all steps to a new directory, so the newest is complete."""

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
            x_disable_meta=True,  # the metadata hold the command line
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
    """Offline like WandB. Steps are shown at the time they were logged; SwanLab accepts no other."""

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
    """Continues the MLflow run that has our run's id as a tag, and logs the steps that it lacks."""

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
        runs = self._client.search_runs([experiment.experiment_id], f"tags.`gradus.id` = '{run.id()}'")
        if not runs:
            return None
        self._client.update_run(runs[0].info.run_id, status="RUNNING")
        return runs[0].info.run_id, int(runs[0].data.tags.get("gradus.step", 0))

    def _create(self, run: TrackedRun, artifacts: str | None) -> str:
        from mlflow.entities import Param

        experiment = self._client.get_experiment_by_name(run.settings.project)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(run.settings.project, artifacts)
        )
        run_id: str = self._client.create_run(
            experiment_id, run_name=run.name, tags={"gradus.id": run.id()}
        ).info.run_id
        params = [Param(key, value[:6000]) for key, value in _flat(run.config).items()]
        for start in range(0, len(params), 100):  # MLflow takes at most 100 of 6000 characters
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
LIBRARIES = {
    "tensorboard": ["tensorboardX"],
    "wandb": ["wandb"],
    "swanlab": ["swanlab"],
    "mlflow": ["mlflow", "sqlalchemy", "alembic"],
}
"""Modules that a backend imports."""


def _replay_offline(tracker: Tracker, run: TrackedRun) -> None:
    if not run.settings.online:
        for point in run.past:
            tracker.log(point)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Values as text, by dotted key; a list becomes one JSON text."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
