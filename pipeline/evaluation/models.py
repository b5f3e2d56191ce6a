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
from pipeline.config.evaluation import LoadingConfig
from pipeline.errors import CheckpointError, GradusError, ModelError
from pipeline.models.hub import first_line, resolve_model
from pipeline.models.policy import ADAPTER_FILE, load_policy, load_trainable, save_final_model, torch_dtype
from pipeline.models.tokenizer import load_tokenizer
from pipeline.runs.checkpoints import load_checkpoint
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
        CheckpointError: there is no room for the copy.
    """
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    if model.base is None:
        return model.path
    check_fit(model, loading)
    disable_progress_bar()  # it would stand between the lines of the evaluation's own
    merge = _merge_adapter if model.kind == "adapter" else _merge_checkpoint
    merged, tokenizer = merge(model, loading)
    try:
        save_final_model(merged, tokenizer, scratch, torch_dtype(loading.dtype))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the merged {model.label} cannot be written to {scratch}: {first_line(error)}. Make room, then go on with "
            "--resume."
        ) from None
    return scratch


def _of_run(label: str, name: str, run: RunDirectory, loading: LoadingConfig) -> EvalModel:
    if (run.path / "stages").is_dir() or not run.checkpoints.path.is_dir():
        raise CheckpointError(
            f"model {name} must be a training run, and is none with one result. Of a search, name a chain's: "
            f"{name}/checkpoints/CHAIN/checkpoint_last."
        )
    if (run.final_model / "config.json").is_file():
        return EvalModel(label, name, "model", run.final_model, None, run)
    if not run.checkpoints.paths():
        raise CheckpointError(f"model {name} must be a run with a final model or a checkpoint, and has neither yet.")
    raise CheckpointError(
        f"model {name} must be a finished run, and has no final model. Evaluate {name}/checkpoints/checkpoint_last."
    )


def _of_checkpoint(label: str, name: str, path: Path, loading: LoadingConfig) -> EvalModel:
    run = RunDirectory(path.parent.parent)
    return EvalModel(label, name, "checkpoint", path, resolve_model(_checkpoint_config(run, loading)), run)


def _checkpoint_config(run: RunDirectory, loading: LoadingConfig) -> ModelConfig:
    """The run's own settings, but for whether code may run and for what this machine has."""
    changes: dict[str, Any] = {"trust_remote_code": loading.trust_remote_code, "device": "cpu", "device_map": None}
    changes |= {"gradient_checkpointing": False} | ({"name": loading.base} if loading.base else {})
    return run.load_config().model.model_copy(update=changes)


def _base_of(path: Path, loading: LoadingConfig) -> Path:
    try:
        settings = dict(json.loads((path / ADAPTER_CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"adapter {path} cannot be read: {error}.") from None
    if (kind := settings.get("peft_type")) != "LORA":
        raise ModelError(f"adapter {path} must be of LoRA, got peft_type {kind!r}: nothing else can be merged here.")
    if not (path / ADAPTER_FILE).is_file():
        raise ModelError(f"adapter {path} must have {ADAPTER_FILE}, and has none: pickled ones are never loaded.")
    if not (name := loading.base or settings.get("base_model_name_or_path")):
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


def check_fit(model: EvalModel, loading: LoadingConfig) -> None:
    """Raises ModelError when an adapter does not fit its base. Loads no weights."""
    if model.kind != "adapter" or model.base is None:
        return
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with safe_open(model.path / ADAPTER_FILE, "pt") as file:
            names = file.keys()
            there = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        config = AutoConfig.from_pretrained(model.base, trust_remote_code=loading.trust_remote_code)
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config, trust_remote_code=loading.trust_remote_code)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"adapter {model.path} cannot be read: {first_line(error)}") from None
    try:
        with torch.device("meta"):
            empty = PeftModel(base, _peft_config(model))
    except ValueError as error:  # modules that are not there
        raise ModelError(_other_base(model, first_line(error))) from None
    wanted = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(empty).items()}
    if wrong := sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name)):
        got, needed = (shapes.get(wrong[0], "none") for shapes in (there, wanted))
        raise ModelError(_other_base(model, f"{len(wrong)} tensors differ ({wrong[0]}: {got}, base: {needed})"))


def _peft_config(model: EvalModel) -> Any:
    from peft import PeftConfig

    try:
        return PeftConfig.from_pretrained(str(model.path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"adapter {model.path} cannot be read: {first_line(error)}") from None


def _merge_checkpoint(model: EvalModel, loading: LoadingConfig) -> tuple[Any, Any]:
    assert model.run and model.base
    config = _checkpoint_config(model.run, loading)
    policy = load_policy(model.base, config)
    load_trainable(policy, load_checkpoint(model.path).tensors)
    return policy, load_tokenizer(model.base, config, chat=False)


def _merge_adapter(model: EvalModel, loading: LoadingConfig) -> tuple[Any, Any]:
    from peft import PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    assert model.base
    config = _model_config(str(model.base), loading)
    merged = PeftModel(load_policy(model.base, config), _peft_config(model))
    set_peft_model_state_dict(merged, load_file(model.path / ADAPTER_FILE))
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
