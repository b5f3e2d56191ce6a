"""The run directory: where a run writes everything, and where resuming reads it back. Layout: docs/run_directory.md."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

from pipeline.config import Config, validate_config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import write_json
from pipeline.runs.checkpoints import CheckpointStore

Kind = Literal["chain", "search"]
JOB_LOCK = ".lock"
"""Held by the job's driver. A learner holds a lock of its own: it may run on another node, and outlive its driver."""
LEARNER_LOCK = ".learner.lock"
LOCK_TIMEOUT_S = 60.0
"""A process that was just killed may hold its lock a moment longer."""
_KINDS: dict[Kind, str] = {"chain": "a run of one chain", "search": "a search"}


class RunDirectory:
    """``output/experiments/exp_YYYYMMDD_HHMMSS``. Layout: docs/run_directory.md."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.checkpoints = CheckpointStore(self.path / "checkpoints")
        self.metrics = self.path / "metrics"
        self.samples = self.path / "samples"
        self.evals = self.path / "eval"
        self.logs = self.path / "logs"
        self.final_model = self.path / "final_model"
        self.final_adapter = self.path / "final_adapter"
        self.final_memory = self.path / "final_memory"

    @classmethod
    def create(cls, config: Config) -> "RunDirectory":
        """A new directory under ``output.root``. Raises ConfigError if it cannot be written."""
        return cls.create_at(make_directory(config.output.root), config)

    @classmethod
    def create_at(cls, path: Path, config: Config) -> "RunDirectory":
        """Create the directory and its subdirectories; contents that already exist stay as they are."""
        run = cls(path)
        for directory in (run.checkpoints.path, run.metrics, run.samples, run.evals, run.logs):
            directory.mkdir(parents=True, exist_ok=True)
        run.save_config(config)
        return run

    @classmethod
    def open(cls, name: str, root: str) -> "RunDirectory":
        """An existing run by its path, or ``latest`` under ``root``.

        Raises:
            CheckpointError: no such run.
        """
        if name == "latest":
            return cls(latest_directory(root, "metrics"))
        if not (Path(name) / "experiment_config.json").is_file():
            raise CheckpointError(f"run directory must hold experiment_config.json, got {name}.")
        return cls(Path(name))

    def save_config(self, config: Config) -> None:
        write_json(self.path / "experiment_config.json", config.model_dump())

    def record_data(self, stage: str, counts: dict[str, int]) -> None:
        """Write how much a stage trains on, and what was too long, to ``data.json``."""
        self._record("data.json", stage, counts)

    def record_memory(self, stage: str, points: dict[str, dict[str, float]]) -> None:
        """Write a learner's memory at the points of a stage to ``memory.json``."""
        self._record("memory.json", stage, points)

    def _record(self, name: str, stage: str, value: Any) -> None:
        path = self.path / name
        known = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, known | {stage: value})

    def record_spectra(self, step: int, report: dict[str, Any]) -> None:
        """Write the singular values of every adapter before and after a refactoring."""
        (self.path / "spectral").mkdir(exist_ok=True)
        write_json(self.path / "spectral" / f"step_{step:06d}.json", report)

    def load_config(self) -> Config:
        """The configuration the run was started with."""
        try:
            return validate_config(json.loads((self.path / "experiment_config.json").read_text()))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}/experiment_config.json cannot be read: {error}") from None

    def require_kind(self, kind: Kind) -> None:
        """Raises CheckpointError if the run is of the other kind."""
        own_kind: Kind = "search" if (self.path / "stages").is_dir() else "chain"
        if own_kind != kind:
            job = "jobs/search_replay.py" if own_kind == "search" else "the job that started it"
            raise CheckpointError(
                f"{self.path} must be resumed by {job}: it is {_KINDS[own_kind]}, not {_KINDS[kind]}."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for a job. The learner of a job that was just killed may still write: wait for its end.

        Raises:
            CheckpointError: another job, or its learner, holds it.
        """
        with hold_lock(self.path):
            hold_lock(self.path, name=LEARNER_LOCK).close()
            yield

    def lock_for_learner(self) -> None:
        """Hold what a learner writes until ``unlock``, or until this process ends: metrics, samples, checkpoints.

        Raises:
            CheckpointError: another learner holds it.
        """
        self._lock_file = hold_lock(self.path, name=LEARNER_LOCK)

    def unlock(self) -> None:
        self._lock_file.close()


def make_directory(root: str) -> Path:
    """A new ``exp_YYYYMMDD_HHMMSS`` under ``root``. Raises ConfigError if it cannot be created."""
    folder = Path(root).expanduser()
    name = datetime.now().strftime("exp_%Y%m%d_%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"_{index}" for index in range(2, 1000))):
            try:
                (folder / (name + suffix)).mkdir()
            except FileExistsError:
                continue
            return folder / (name + suffix)
    except OSError as error:
        raise ConfigError(f"output.root must be writable, got {folder}: {error.strerror}.") from None
    raise ConfigError(f"output.root must have room for one more {name}, got {folder}.")


def latest_directory(root: str, part: str) -> Path:
    """The newest job directory under ``root`` that contains ``part``, which tells training from evaluation.

    Raises:
        CheckpointError: no such directory.
    """
    configs = Path(root).expanduser().glob("exp_*/experiment_config.json")
    configs_of_kind = [path for path in configs if (path.parent / part).exists()]
    if not configs_of_kind:
        raise CheckpointError(f"--resume latest: there is no run under {root}.")
    return max(configs_of_kind, key=lambda path: path.stat().st_mtime).parent


def hold_lock(directory: Path, name: str = JOB_LOCK) -> IO[str]:
    """Hold a directory, because two jobs in one directory would mix their results.

    Args:
        name: of the lock file.

    Returns:
        The lock file. The lock ends when it is closed or garbage-collected, and with this process.

    Raises:
        CheckpointError: another process holds the directory.
    """
    lock_file = (directory / name).open("a")  # "w" would change the file before the directory is held
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock_file
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock_file.close()
                raise CheckpointError(f"run {directory} is in use by another job. Wait for it to end.") from None
            time.sleep(0.5)
