"""What a user may call a model, as a directory that an engine loads.

A hub name, a directory with a model, the embedded model: as ``resolve_model`` has it. A run directory: its final model.
A checkpoint of a run, or a LoRA adapter: merged into its base, once, in a directory of the evaluation's own.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Config, ModelConfig
from pipeline.errors import CheckpointError, GradusError, ModelError
from pipeline.evaluation.settings import LoadingConfig
from pipeline.experiment import RunDirectory, load_checkpoint
from pipeline.models.hub import resolve_model
from pipeline.models.policy import ADAPTER_FILE, load_policy, load_trainable, save_final_model, torch_dtype
from pipeline.models.tokenizer import load_tokenizer

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class EvalModel:
    """One model, found but not loaded."""

    label: str
    name: str
    """As the user gave it."""
    kind: Literal["model", "adapter", "checkpoint"]
    path: Path
    """With links followed: ``checkpoint_last`` may move on while its run trains."""
    base: Path | None
    """What the adapter or the checkpoint is merged into."""
    run: RunDirectory | None
    """The run it comes from."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over names, sizes and times of its files: another one means other weights."""
        digest = hashlib.sha256()
        for path in sorted(p for folder in filter(None, (self.path, self.base)) for p in folder.iterdir()):
            if path.is_file():
                status = path.stat()
                digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def run_config(self) -> Config | None:
        return self.run.load_config() if self.run else None


def find_model(label: str, name: str, loading: LoadingConfig) -> EvalModel:
    """Downloads what comes from a hub.

    Raises:
        ModelError, CheckpointError: there is no such model, or nothing in it that can be evaluated.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        return EvalModel(label, name, "model", resolve_model(_model_config(name, loading)), None, None)
    path = path.resolve()
    if (path / "experiment_config.json").is_file():
        return _of_run(label, name, RunDirectory(path), loading)
    if (path / "policy.safetensors").is_file():
        return _of_checkpoint(label, name, path, loading)
    run = RunDirectory(path.parent) if (path.parent / "experiment_config.json").is_file() else None
    if (path / ADAPTER_CONFIG).is_file():
        return EvalModel(label, name, "adapter", path, _base_of(path, loading), run)
    return EvalModel(label, name, "model", resolve_model(_model_config(name, loading)), None, run)


def load_directory(model: EvalModel, loading: LoadingConfig, scratch: Path) -> Path:
    """A directory that an engine loads: the model's own, or a merged copy below ``scratch``.

    Raises:
        ModelError: an adapter or a checkpoint does not fit its base.
    """
    if model.base is None:
        return model.path
    merge = _merge_adapter if model.kind == "adapter" else _merge_checkpoint
    merged, tokenizer = merge(model, loading)
    save_final_model(merged, tokenizer, scratch, torch_dtype(loading.dtype))
    return scratch


def _of_run(label: str, name: str, run: RunDirectory, loading: LoadingConfig) -> EvalModel:
    if (run.path / "stages").is_dir() or not run.checkpoints.is_dir():
        raise CheckpointError(
            f"model {name} must be a training run, and is none with one result. Of a search, name a chain's: "
            f"{name}/checkpoints/CHAIN/checkpoint_last."
        )
    if (run.final_model / "config.json").is_file():
        return EvalModel(label, name, "model", run.final_model, None, run)
    if not run.checkpoint_paths():
        raise CheckpointError(f"model {name} must be a run with a final model or a checkpoint, and has neither yet.")
    raise CheckpointError(
        f"model {name} must be a finished run, and has no final model. Evaluate {name}/checkpoints/checkpoint_last."
    )


def _of_checkpoint(label: str, name: str, path: Path, loading: LoadingConfig) -> EvalModel:
    run = RunDirectory(path.parent.parent)
    config = run.load_config()
    base = resolve_model(config.model.model_copy(update={"name": loading.base} if loading.base else {}))
    return EvalModel(label, name, "checkpoint", path, base, run)


def _base_of(path: Path, loading: LoadingConfig) -> Path:
    try:
        named = json.loads((path / ADAPTER_CONFIG).read_text()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"adapter {path} cannot be read: {error}.") from None
    if not (path / ADAPTER_FILE).is_file():
        raise ModelError(f"adapter {path} must have {ADAPTER_FILE}, and has none: pickled ones are never loaded.")
    if not (name := loading.base or named):
        raise ModelError(f"adapter {path} names no base model. Set loading.base.")
    try:
        return resolve_model(_model_config(name, loading))
    except GradusError as error:
        raise ModelError(f"base of adapter {path}: {error} Set loading.base to where it is.") from None


def _model_config(name: str, loading: LoadingConfig) -> ModelConfig:
    return ModelConfig(
        name=name,
        hub=loading.hub,
        revision=loading.revision,
        dtype=loading.dtype,
        trust_remote_code=loading.trust_remote_code,
        master_dtype="float32",
        device="cpu",
    )


def _merge_checkpoint(model: EvalModel, loading: LoadingConfig) -> tuple[Any, Any]:
    assert model.run and model.base
    settings = model.run.load_config().model
    config = settings.model_copy(update={"device": "cpu", "device_map": None, "gradient_checkpointing": False})
    policy = load_policy(model.base, config)
    load_trainable(policy, load_checkpoint(model.path).tensors)
    return policy, load_tokenizer(model.base, config, chat=False)


def _merge_adapter(model: EvalModel, loading: LoadingConfig) -> tuple[Any, Any]:
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    assert model.base
    config = _model_config(str(model.base), loading)
    try:
        peft_config = PeftConfig.from_pretrained(str(model.path))
        tensors = load_file(model.path / ADAPTER_FILE)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(f"adapter {model.path} cannot be read: {str(error).splitlines()[0]}") from None
    base = load_policy(model.base, config)
    try:
        merged = PeftModel(base, peft_config)
        result = set_peft_model_state_dict(merged, tensors)
    except (RuntimeError, ValueError, KeyError) as error:  # shapes, or modules that are not there
        raise ModelError(_other_base(model, str(error).strip().splitlines()[-1].strip())) from None
    missing = [name for name in result.missing_keys if "lora_" in name]
    if wrong := [*missing, *result.unexpected_keys]:
        raise ModelError(_other_base(model, f"{len(wrong)} tensors have no place or are missing ({wrong[0]})"))
    return merged, load_tokenizer(model.base, config, chat=False)


def _other_base(model: EvalModel, reason: str) -> str:
    return (
        f"adapter {model.path} must fit its base {model.base}, and was trained for another: {reason}. "
        "Set loading.base to the model it was trained on."
    )


def unique_labels(models: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(label, model), a path's label cut to what tells it apart: ``exp_20261122_120325``."""
    short = {label: _short(label) for label in models}
    for label, name in models.items():
        is_unique = list(short.values()).count(short[label]) == 1
        yield (short[label] if label == name and is_unique else label), name


def _short(label: str) -> str:
    path = Path(label).expanduser()
    if not path.is_dir():
        return label
    parts = path.absolute().parts
    at = next((index for index, part in enumerate(parts) if part.startswith("exp_")), len(parts) - 1)
    return "/".join(part for part in parts[at:] if part != "checkpoints")
