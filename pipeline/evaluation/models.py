"""Finds the models that a user names.

A hub name, a directory with a model, or the embedded model: resolved by ``resolve_model``. A run directory: its final
model. A checkpoint of a run, or a LoRA adapter: to be merged into its base (merging.py).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Config, ModelConfig
from pipeline.config.evaluation import LoadingConfig
from pipeline.errors import CheckpointError, GradusError, ModelError
from pipeline.models.hub import resolve_model
from pipeline.models.policy import ADAPTER_FILE
from pipeline.runs.directory import RunDirectory

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class EvalModel:
    """One model, found but not loaded."""

    label: str
    name: str
    """As the user gave it."""
    kind: Literal["model", "adapter", "checkpoint"]
    path: Path
    """Links are resolved: ``checkpoint_last`` may change while its run trains."""
    base: Path | None
    """The model that the adapter or checkpoint is merged into."""
    run: RunDirectory | None
    """The run it comes from."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over names, sizes and times of its files. A different fingerprint means different weights."""
        digest = hashlib.sha256()
        for path in sorted(p for folder in filter(None, (self.path, self.base)) for p in folder.iterdir()):
            if path.is_file():
                status = path.stat()
                digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def run_config(self) -> Config | None:
        return self.run.load_config() if self.run else None


def find_model(label: str, name: str, loading: LoadingConfig) -> EvalModel:
    """Find a model; one on a hub is downloaded.

    Raises:
        ModelError, CheckpointError: there is no such model, or it cannot be evaluated.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        return EvalModel(label, name, "model", resolve_model(loading_config(name, loading)), None, None)
    path = path.resolve()
    if (path / "experiment_config.json").is_file():
        return _final_model(label, name, RunDirectory(path))
    if (path / "policy.safetensors").is_file():
        return _checkpoint(label, name, path, loading)
    run = RunDirectory(path.parent) if (path.parent / "experiment_config.json").is_file() else None
    if (path / ADAPTER_CONFIG).is_file():
        return EvalModel(label, name, "adapter", path, _base_of(path, loading), run)
    return EvalModel(label, name, "model", resolve_model(loading_config(name, loading)), None, run)


def _final_model(label: str, name: str, run: RunDirectory) -> EvalModel:
    if (run.path / "stages").is_dir() or not run.checkpoints.path.is_dir():
        raise CheckpointError(
            f"model {name} must be a training run with one result. For a search, name the checkpoint of one chain: "
            f"{name}/checkpoints/CHAIN/checkpoint_last."
        )
    if (run.final_model / "config.json").is_file():
        return EvalModel(label, name, "model", run.final_model, None, run)
    if not run.checkpoints.paths():
        raise CheckpointError(f"model {name} must be a run with a final model or a checkpoint, and has neither yet.")
    raise CheckpointError(
        f"model {name} must be a finished run, and has no final model. Evaluate {name}/checkpoints/checkpoint_last."
    )


def _checkpoint(label: str, name: str, path: Path, loading: LoadingConfig) -> EvalModel:
    run = RunDirectory(path.parent.parent)
    return EvalModel(label, name, "checkpoint", path, resolve_model(checkpoint_config(run, loading)), run)


def checkpoint_config(run: RunDirectory, loading: LoadingConfig) -> ModelConfig:
    """The run's model settings, except that remote code is allowed only by this evaluation, and that the model is
    loaded on the CPU."""
    changes: dict[str, Any] = {"trust_remote_code": loading.trust_remote_code, "device": "cpu", "device_map": None}
    changes |= {"gradient_checkpointing": False} | ({"name": loading.base} if loading.base else {})
    return run.load_config().model.model_copy(update=changes)


def loading_config(name: str, loading: LoadingConfig) -> ModelConfig:
    """Settings that load a model on the CPU."""
    return ModelConfig(
        name=name,
        hub=loading.hub,
        revision=loading.revision,
        dtype=loading.dtype,
        trust_remote_code=loading.trust_remote_code,
        master_dtype="float32",
        device="cpu",
    )


def _base_of(path: Path, loading: LoadingConfig) -> Path:
    try:
        settings = dict(json.loads((path / ADAPTER_CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"adapter {path} cannot be read: {error}.") from None
    if (kind := settings.get("peft_type")) != "LORA":
        raise ModelError(f"adapter {path} must be LoRA, got peft_type {kind!r}: no other kind can be merged here.")
    if not (path / ADAPTER_FILE).is_file():
        raise ModelError(f"adapter {path} must have {ADAPTER_FILE}: pickled adapters are never loaded.")
    if not (name := loading.base or settings.get("base_model_name_or_path")):
        raise ModelError(f"adapter {path} names no base model. Set loading.base.")
    try:
        return resolve_model(loading_config(name, loading))
    except GradusError as error:
        raise ModelError(f"base of adapter {path}: {error} Set loading.base to its location.") from None


def unique_labels(models: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(label, model) pairs, with paths shortened to the part that identifies them: ``exp_20261122_120325``."""
    short = {label: _short(label) for label in models}
    for label, name in models.items():
        is_unique = list(short.values()).count(short[label]) == 1
        yield (short[label] if label == name and is_unique else label), name


def _short(label: str) -> str:
    path = Path(label).expanduser()
    if not path.is_dir():
        return label
    parts = path.absolute().parts
    start = next((index for index, part in enumerate(parts) if part.startswith("exp_")), len(parts) - 1)
    return "/".join(part for part in parts[start:] if part != "checkpoints")
