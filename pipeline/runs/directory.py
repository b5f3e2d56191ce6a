"""The run directory: where everything a run leaves behind goes, and what resuming reads.

A checkpoint is written under a hidden name and renamed when it is whole, so a reader never sees half of
one. On several nodes the run directory must be on a shared filesystem.
"""

import fcntl
import json
import os
import pickle
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config import Config, validate_config
from pipeline.curriculum.replay import ReplayItem
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import sha256, write_json

_KINDS = {"chain": "a run of one chain", "search": "a search"}


@dataclass
class Progress:
    """How far a run is. Everything else a step needs follows from the seed and the step number."""

    stage: str
    stage_step: int = 0
    """Steps of this stage that are done."""
    step: int = 0
    """Steps of the whole run that are done."""
    stage_done: bool = False
    """All steps are done and the stage's evaluation is written."""
    reward_history: list[float] = field(default_factory=list)
    """Mean reward of every GRPO step of the run."""
    score: float | None = None
    """Mean over the steps since the last checkpoint: of the reward, or of minus the SFT loss. With a
    ``metric_for_best_model``, of the evaluation at this step; None without one."""
    started_from: str = ""
    """Digest of the weights the stage started from."""
    ended_with: str = ""
    """Digest of the weights it ended with; empty until it is done."""
    pass_start: int = 0
    """Step of the stage at which it was repeated; 0 when it never was."""
    num_repeats: int = 0
    level_accuracies: list[float] = field(default_factory=list)
    """On the stage's level since ``pass_start``, where a promotion rule asks for them."""
    eval_scores: list[float] = field(default_factory=list)
    """Of the evaluations since ``pass_start``, by ``eval.metric_for_best_model``. Higher is better."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, loaded and verified."""

    path: Path
    progress: Progress
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    reference: dict[str, Tensor] | None


class RunDirectory:
    """``output/experiments/exp_YYYYMMDD_HHMMSS``. Layout: docs/run_directory.md."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics"
        self.samples = self.path / "samples"
        self.evals = self.path / "eval"
        self.logs = self.path / "logs"
        self.final_model = self.path / "final_model"
        self.final_adapter = self.path / "final_adapter"

    @classmethod
    def create(cls, config: Config) -> "RunDirectory":
        """A new directory under ``output.root``. Raises ConfigError when it cannot be written."""
        return cls.create_at(make_directory(config.output.root), config)

    @classmethod
    def create_at(cls, path: Path, config: Config) -> "RunDirectory":
        """The directory with its parts; one that is there stays as it is."""
        run = cls(path)
        for directory in (run.checkpoints, run.metrics, run.samples, run.evals, run.logs):
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
        """What a stage trains on, and what was too long, into ``data.json``."""
        path = self.path / "data.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, known | {stage: counts})

    def record_spectra(self, step: int, report: dict[str, Any]) -> None:
        """Singular values of every adapter before and after a refactoring."""
        (self.path / "spectral").mkdir(exist_ok=True)
        write_json(self.path / "spectral" / f"step_{step:06d}.json", report)

    def load_config(self) -> Config:
        """The configuration the run was started with."""
        try:
            return validate_config(json.loads((self.path / "experiment_config.json").read_text()))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}/experiment_config.json cannot be read: {error}") from None

    def require_kind(self, kind: Literal["chain", "search"]) -> None:
        """Raises CheckpointError when the run is of the other kind: a search has chains, each other run is one."""
        found = "search" if (self.path / "stages").is_dir() else "chain"
        if found != kind:
            job = "jobs/search_replay.py" if found == "search" else "the job that started it"
            raise CheckpointError(f"{self.path} must be resumed by {job}: it is {_KINDS[found]}, not {_KINDS[kind]}.")

    # Checkpoints -----------------------------------------------------------------------------------

    def save_checkpoint(
        self,
        progress: Progress,
        tensors: dict[str, Tensor],
        optimizer: dict[str, Any],
        reference: dict[str, Tensor] | None,
        replay: dict[str, Any] | None = None,
    ) -> Path:
        """Write one checkpoint, whole or not at all, and point ``checkpoint_last`` at it.

        Args:
            replay: plain JSON, of a curriculum: the ``buffer``, and ``trained``: what the stage adds to it.
        """
        final = self.checkpoints / f"step_{progress.step:06d}{'_done' if progress.stage_done else ''}"
        partial = self.checkpoints / f".{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        policy = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(policy, partial / "policy.safetensors")
        if reference is not None:
            save_file({name: t.contiguous() for name, t in reference.items()}, partial / "reference.safetensors")
        torch.save(optimizer, partial / "optimizer.pt")
        if replay is not None:
            write_json(partial / "replay.json", replay)
        write_json(partial / "progress.json", asdict(progress))
        sums = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        write_json(partial / "manifest.json", sums)
        for path in (*partial.iterdir(), partial):
            _fsync(path)
        _remove_checkpoint(final)
        partial.rename(final)
        _fsync(self.checkpoints)
        self.refresh_links()
        return final

    def refresh_links(self) -> None:
        """``checkpoints/<stage>`` for the result of every stage that is done, ``checkpoints/checkpoint_last`` and, of
        the newest stage, ``checkpoints/checkpoint_best``."""
        for stage, path in self.stage_checkpoints().items():
            link(self.checkpoints / stage, path)
        if paths := self.checkpoint_paths():
            link(self.checkpoints / "checkpoint_last", paths[-1])
        best_link = self.checkpoints / "checkpoint_best"
        if best := self.best_checkpoint():
            link(best_link, best)
        else:
            best_link.unlink(missing_ok=True)

    def stage_checkpoints(self) -> dict[str, Path]:
        """Results of the stages that are done, by name, in order."""
        return {read_progress(path).stage: path for path in self.checkpoint_paths() if path.name.endswith("_done")}

    def checkpoint_paths(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("step_*"), key=lambda path: (len(path.name.split("_")[1]), path.name))

    def latest_progress(self) -> Progress | None:
        """Of the newest whole checkpoint, without loading its tensors; None before the first one."""
        paths = self.checkpoint_paths()
        return read_progress(paths[-1]) if paths else None

    def load_latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, checked against its manifest; None before the first one.

        Raises:
            CheckpointError: it is corrupt.
        """
        paths = self.checkpoint_paths()
        return load_checkpoint(paths[-1]) if paths else None

    def verify_latest(self) -> None:
        """Raises CheckpointError when the newest whole checkpoint changed after it was written."""
        if paths := self.checkpoint_paths():
            verify_checkpoint(paths[-1])

    def lock(self, timeout_s: float = 60.0) -> None:
        """Raises CheckpointError: another process trains in this directory."""
        self._lock_file = hold_lock(self.path, timeout_s)

    def prune_checkpoints(self, keep_last: int) -> None:
        """Keep the last k, the best one of the newest stage, every stage's result, and nothing half-written."""
        for partial in self.checkpoints.glob(".*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        paths = self.checkpoint_paths()
        kept = {*paths[-keep_last:], *self.stage_checkpoints().values()}
        best = self.best_checkpoint()
        for path in paths:
            if path not in kept and path != best:
                _remove_checkpoint(path)

    def best_checkpoint(self, stage: str | None = None) -> Path | None:
        """The checkpoint of a stage, by default the newest, with the highest score; a later one wins a tie."""
        scored = [(read_progress(path), path) for path in self.checkpoint_paths()]
        stage = stage or (scored[-1][0].stage if scored else None)
        scored = [(p, path) for p, path in scored if p.stage == stage and p.score is not None]
        return max(scored, key=lambda item: (item[0].score, item[0].step))[1] if scored else None


def make_directory(root: str) -> Path:
    """A new ``exp_YYYYMMDD_HHMMSS`` under ``root``. Raises ConfigError when it cannot be made."""
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
    """The newest job directory under ``root`` that has ``part``: what tells training from evaluation.

    Raises:
        CheckpointError: there is none.
    """
    found = [path.parent for path in Path(root).expanduser().glob("exp_*/experiment_config.json")]
    found = [path for path in found if (path / part).exists()]
    if not found:
        raise CheckpointError(f"--resume latest: there is no run under {root}.")
    return max(found, key=lambda path: (path / "experiment_config.json").stat().st_mtime)


def hold_lock(directory: Path, timeout_s: float = 60.0) -> IO[str]:
    """Hold a directory until this process ends: two jobs in one would mix their results.

    Returns:
        What must be kept for as long.

    Raises:
        CheckpointError: another process holds it. A killed one may need a moment to be gone.
    """
    lock_file = (directory / ".lock").open("w")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock_file
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CheckpointError(f"run {directory} is in use by another job. Wait for it to end.") from None
            time.sleep(0.5)


def link(path: Path, target: Path) -> None:
    """Make ``path`` a relative symbolic link, in place of the one that may be there. Never half-done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.link")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
    new.replace(path)


def read_trained(checkpoint: Path) -> list[ReplayItem]:
    """Problems that the checkpoint's stage trained on, as new ones."""
    try:
        return [ReplayItem(*item) for item in json.loads((checkpoint / "replay.json").read_text())["trained"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(checkpoint, f"replay.json: {error}") from None


def read_progress(checkpoint: Path) -> Progress:
    try:
        return Progress(**json.loads((checkpoint / "progress.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise _corrupt(checkpoint, f"progress.json: {error}") from None


def verify_checkpoint(path: Path) -> None:
    """Raises CheckpointError when a file is missing or changed."""
    try:
        sums = json.loads((path / "manifest.json").read_text())
        for name, expected in sums.items():
            if sha256(path / name) != expected:
                raise _corrupt(path, f"{name} changed after it was written")
    except (OSError, ValueError) as error:
        raise _corrupt(path, str(error)) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Load and verify one checkpoint. Raises CheckpointError when a file is missing or changed."""
    verify_checkpoint(path)
    try:
        reference = path / "reference.safetensors"
        return Checkpoint(
            path=path,
            progress=read_progress(path),
            tensors=load_file(path / "policy.safetensors"),
            optimizer=torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True),
            reference=load_file(reference) if reference.exists() else None,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise _corrupt(path, str(error)) from None


def _remove_checkpoint(path: Path) -> None:
    """Hide it first: a kill in the middle must not leave half of it under its own name."""
    if path.exists():
        hidden = path.with_name(f".{path.name}.old.partial")
        if hidden.exists():
            shutil.rmtree(hidden)
        path.rename(hidden)
        shutil.rmtree(hidden)


def _corrupt(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} is corrupt ({reason}). Delete it to go on from the one before.")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PhaseClock:
    """Seconds per phase of a step, with nothing left out: a lap ends where the next one starts."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start

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
