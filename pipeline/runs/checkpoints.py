"""Checkpoints of a run: complete or absent, checksummed, linked by stage; and the progress each one records.

Several nodes need a filesystem that all of them share.
"""

import fcntl
import json
import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.files import link, sha256, sync, write_json, write_jsonl
from pipeline.runs.records import read_jsonl

WRITTEN = "written.jsonl"
POLICY = "policy.safetensors"
MEMORY_FILES = "memory_step_*.safetensors"
"""The parts of an explicit memory, instead of the policy."""


@dataclass
class Progress:
    """Position of a run in its stages. Everything else a step needs follows from the seed and the step number."""

    stage: str
    stage_step: int = 0
    """Finished steps of this stage."""
    step: int = 0
    """Finished steps of the whole run."""
    stage_done: bool = False
    """All steps are done and the stage's evaluation is written."""
    reward_history: list[float] = field(default_factory=list)
    """Mean reward of every GRPO step of the run."""
    score: float | None = None
    """Higher is better. Mean over the steps since the last checkpoint of the reward, or of minus the SFT loss. With
    ``eval.metric_for_best_model``: that metric at this step, None if this step was not evaluated."""
    started_from: str = ""
    """Digest of the weights the stage started from."""
    ended_with: str = ""
    """Digest of the weights the stage ended with; empty until it is done."""
    pass_start: int = 0
    """Step of the stage at which its current pass began; 0 unless it was repeated."""
    num_repeats: int = 0
    level_accuracies: list[float] = field(default_factory=list)
    """Held-out accuracies on the stage's level since ``pass_start``; empty without a promotion rule."""
    eval_scores: list[float | None] = field(default_factory=list)
    """``eval.metric_for_best_model`` of each evaluation since ``pass_start``, signed so that higher is better. None: it
    was not finite."""
    frozen_start: str = ""
    """Digest of what PiSSA's adapters subtract; empty without PiSSA."""
    skipped_in_a_row: int = 0
    """Optimizer updates skipped since the last one that was made."""
    stepped_at: float = field(default=0.0, compare=False)
    """Unix time at the end of the last step, moved forward by evaluations since then. The only field in which a resumed
    run differs from an undisturbed one, so it is left out of comparisons."""
    reward_state: dict[str, Any] = field(default_factory=dict)
    """State of the rewards after this step. See pipeline/rewards/history.py."""
    choices: dict[str, Any] = field(default_factory=dict)
    """State of the stage's sampler, and problems it has chosen for later steps. See pipeline/curriculum/choices.py."""
    sampled_tokens: int = 0
    """Tokens of all completions that the stage has sampled, those of dropped groups included."""
    ended_early: str = ""
    """Reason why the stage ends before all its steps are done; empty unless it does."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, loaded and verified."""

    path: Path
    progress: Progress
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    reference: dict[str, Tensor] | None


def memory_file(step: int) -> str:
    return MEMORY_FILES.replace("*", str(step))


class CheckpointStore:
    """The checkpoints of one run. Each is written under a hidden name, then renamed: none is ever seen incomplete."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(
        self,
        progress: Progress,
        tensors: dict[str, Tensor],
        optimizer: dict[str, Any],
        reference: dict[str, Tensor] | None,
        replay: dict[str, Any] | None = None,
        written: Sequence[dict[str, Any]] | None = None,
        memory: Mapping[str, str] | None = None,
    ) -> Path:
        """Write one checkpoint, all of it or nothing, and point ``checkpoint_last`` at it.

        Args:
            tensors: the trained tensors by name: all weights, or the adapters.
            optimizer: the optimizer's state_dict.
            reference: the reference policy's tensors; None without a KL term.
            replay: plain JSON; None outside a curriculum. ``buffer``: the state of the replay buffer; ``trained``: the
                problems that this stage adds to it.
            written: rows of the problems that were written at the stage's end; None if none were.
            memory: metadata of an explicit memory, whose file others can load; None without one.
        """
        final = self.path / f"step_{progress.step:06d}{'_done' if progress.stage_done else ''}"
        partial = self.path / f".{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        policy = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(policy, partial / (memory_file(progress.step) if memory else POLICY), dict(memory or {}) or None)
        if reference is not None:
            save_file({name: t.contiguous() for name, t in reference.items()}, partial / "reference.safetensors")
        torch.save(optimizer, partial / "optimizer.pt")
        if replay is not None:
            write_json(partial / "replay.json", replay)
        if written is not None:
            write_jsonl(partial / WRITTEN, written)
        write_json(partial / "progress.json", asdict(progress))
        sums = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        write_json(partial / "manifest.json", sums)
        for path in (*partial.iterdir(), partial):
            sync(path)
        if final.exists():
            shutil.rmtree(_hide(final))
        partial.rename(final)
        sync(self.path)
        self.refresh_links()
        return final

    def refresh_links(self) -> None:
        """Link ``<stage>`` to the result of every finished stage, ``checkpoint_last`` to the newest checkpoint, and
        ``checkpoint_best`` to the best one of the newest stage."""
        for stage, path in self.stage_results().items():
            link(self.path / stage, path)
        if latest := self.latest():
            link(self.path / "checkpoint_last", latest)
        best_link = self.path / "checkpoint_best"
        if best := self.best():
            link(best_link, best)
        else:
            best_link.unlink(missing_ok=True)

    def stage_results(self) -> dict[str, Path]:
        """Result of every finished stage by the stage's name, in order."""
        return {read_progress(path).stage: path for path in self.paths() if path.name.endswith("_done")}

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.path.glob("step_*"), key=lambda path: (len(path.name.split("_")[1]), path.name))

    def latest_progress(self) -> Progress | None:
        """Progress of the newest complete checkpoint, without loading its tensors; None before the first one."""
        path = self.latest()
        return read_progress(path) if path else None

    def latest(self) -> Path | None:
        """The newest complete checkpoint; None before the first one."""
        return next(reversed(self.paths()), None)

    def verify_latest(self) -> None:
        """Raises CheckpointError if the newest complete checkpoint changed after it was written."""
        if path := self.latest():
            verify_checkpoint(path)

    def prune(self, keep_last: int) -> None:
        """Keep the last ``keep_last``, the best one of the newest stage, every stage's result, and those that are being
        read. Delete all others, incomplete ones included."""
        for partial in self.path.glob(".*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        paths = self.paths()
        kept = {*paths[-keep_last:], *self.stage_results().values()}
        best = self.best()
        for path in paths:
            if path not in kept and path != best:
                _remove_unread(path)

    def best(self, stage: str | None = None) -> Path | None:
        """The checkpoint with the highest score in a stage, by default the newest stage; of equal ones the later. None
        if the stage has no checkpoint with a score. NaN, in checkpoints of older versions, is no score."""
        scored = [(read_progress(path), path) for path in self.paths()]
        stage = stage or (scored[-1][0].stage if scored else None)
        scored = [(p, path) for p, path in scored if p.stage == stage and p.score is not None and isfinite(p.score)]
        return max(scored, key=lambda item: (item[0].score, item[0].step))[1] if scored else None


def read_progress(checkpoint: Path) -> Progress:
    try:
        return Progress(**json.loads((checkpoint / "progress.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise corrupt_checkpoint(checkpoint, f"progress.json: {error}") from None


def read_written(checkpoint: Path) -> list[dict[str, Any]]:
    """Rows of the problems that were written at the end of the checkpoint's stage; empty if none were."""
    return read_jsonl(checkpoint / WRITTEN)


def verify_checkpoint(path: Path) -> None:
    """Raises CheckpointError if a file is missing or changed."""
    try:
        sums = json.loads((path / "manifest.json").read_text())
        for name, expected in sums.items():
            if sha256(path / name) != expected:
                raise corrupt_checkpoint(path, f"{name} changed after it was written")
    except (OSError, ValueError) as error:
        raise corrupt_checkpoint(path, str(error)) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Load and verify one checkpoint. Raises CheckpointError if a file is missing or changed."""
    verify_checkpoint(path)
    try:
        reference = path / "reference.safetensors"
        return Checkpoint(
            path=path,
            progress=read_progress(path),
            tensors=load_file(next(path.glob(MEMORY_FILES), path / POLICY)),
            optimizer=torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True),
            reference=load_file(reference) if reference.exists() else None,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise corrupt_checkpoint(path, str(error)) from None


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Within the block the checkpoint is not pruned, whichever process on whichever node trains its run.

    The block holds a shared lock on the manifest. Across nodes this needs a filesystem with locks, such as NFS.

    Raises:
        CheckpointError: it was pruned before.
    """
    try:
        manifest = (path / "manifest.json").open("rb")
    except OSError as error:
        raise corrupt_checkpoint(path, str(error)) from None
    with manifest:
        deleted = CheckpointError(f"checkpoint {path} was just deleted by its run. Name a newer one.")
        try:
            fcntl.flock(manifest, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise deleted from None
        if not path.exists():
            raise deleted
        yield


def _remove_unread(path: Path) -> None:
    """Delete a checkpoint, unless somebody reads it."""
    with (path / "manifest.json").open("ab") as manifest:  # NFS locks only files that are open for writing
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        hidden = _hide(path)
    shutil.rmtree(hidden)  # on NFS an open file would keep its directory


def _hide(path: Path) -> Path:
    """Rename a checkpoint before it is deleted: a kill halfway leaves nothing incomplete under its name."""
    hidden = path.with_name(f".{path.name}.old.partial")
    if hidden.exists():
        shutil.rmtree(hidden)
    return path.rename(hidden)


def corrupt_checkpoint(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} is corrupt ({reason}). Delete it to continue from the one before.")
