"""Finds a model's files: a local directory, the embedded model, Hugging Face or ModelScope."""

import importlib
import json
import logging
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeVar

from pipeline.config import DataConfig, ModelConfig
from pipeline.errors import DataError, ModelError, first_line
from pipeline.files import content_digest
from pipeline.models import embedded

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

logger = logging.getLogger(__name__)
Hubbed = TypeVar("Hubbed", ModelConfig, DataConfig)

CHECK_TIMEOUT_S = 2.0
"""Seconds that the quick checks wait for a hub."""
_ALLOW = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
# Subfolders hold other formats; "consolidated" is a second copy of the weights.
_IGNORE = ["*/*", "consolidated*"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken"}


def resolve_model(config: ModelConfig) -> Path:
    """A local directory with the model's checkpoint, downloaded first if needed.

    Only safetensors weights are used, and Python files only with ``trust_remote_code``. If the hub cannot be reached,
    an earlier download in its cache is used.

    Raises:
        ModelError: the model cannot be found or downloaded, or has no safetensors weights.
    """
    if config.name.startswith("embedded:"):
        _check_embedded_name(config.name)
        return embedded.build_embedded_model()
    if path := _local_dir(config.name):
        return path
    if config.hub == "modelscope":
        return _checked(_modelscope_snapshot(config), config.name)
    # snapshot_download alone would wait forever for a hub that accepts connections and never answers.
    offline = hub_info("model", config.name, config.revision) is None
    return _checked(_snapshot(config, offline=offline), config.name)


def pinned_model(config: ModelConfig) -> ModelConfig:
    """The settings with a hub's branch or tag replaced by the commit that it now stands for.

    Every process that gets them then uses the same files, whenever and wherever it starts. ModelScope has no commits
    that can be asked for: its revisions stay as they are.

    Raises:
        ModelError: as resolve_model.
    """
    if config.name.startswith("embedded:") or _local_dir(config.name) or not may_move(config):
        return config
    info = hub_info("model", config.name, config.revision)
    commit = info.sha if info else _snapshot(config, offline=True).name  # .../snapshots/<commit>
    return config.model_copy(update={"revision": commit})


def own_revision(config: Hubbed, other: Hubbed) -> Hubbed:
    """The settings without the other's revision, if it is not the same repository."""
    is_other = (config.name, config.hub) != (other.name, other.hub)
    return config.model_copy(update={"revision": None}) if is_other and config.revision == other.revision else config


def may_move(config: ModelConfig | DataConfig) -> bool:
    """The revision is a branch or tag of the Hugging Face hub, not a commit."""
    return config.hub == "huggingface" and not re.fullmatch("[0-9a-f]{40}", config.revision or "")


def model_files(path: Path, *, with_code: bool = False) -> dict[str, str]:
    """Digests of the files that a model is loaded from, by name: weights, configuration, tokenizer and, with
    ``trust_remote_code``, its code."""
    suffixes = _SUFFIXES | ({".py"} if with_code else set())
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes and file.is_file())
    return {file.name: content_digest(file) for file in files}


def check_model(config: ModelConfig) -> str:
    """One line on the model that ``resolve_model`` would use. Takes seconds and downloads nothing.

    Raises:
        ModelError: the model cannot be found.
    """
    if config.name.startswith("embedded:"):
        _check_embedded_name(config.name)
        path = embedded.embedded_model_dir()
        return f"{config.name}, " + (f"in cache: {path}" if path.is_dir() else "will be fetched: 93 MB")
    if local := _local_dir(config.name):
        return f"local directory {local}"
    if config.hub == "modelscope":
        if not _modelscope_has(config.name):
            raise ModelError(f"model {config.name} cannot be found on ModelScope. Check model.name and the network.")
        return f"{config.name} on ModelScope"
    info = hub_info("model", config.name, config.revision, timeout_s=CHECK_TIMEOUT_S)
    if info is None:
        return f"{config.name}, in cache: {_checked(_snapshot(config, offline=True), config.name)}"
    if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or []):
        raise ModelError(_no_weights(config.name))
    return f"{config.name} on the Hugging Face hub, revision {info.sha}"


def local_files(config: ModelConfig) -> Path | None:
    """The model's directory, if all of its files are on this machine; nothing is downloaded.

    Raises:
        ModelError: a local directory does not exist, or is no model.
    """
    if config.name.startswith("embedded:"):
        path = embedded.embedded_model_dir()
        return path if path.is_dir() else None
    if (local := _local_dir(config.name)) or config.hub == "modelscope":
        return local
    try:
        path = _checked(_snapshot(config, offline=True), config.name)
        check_weights(path, config.name)
    except ModelError:
        return None
    return path if any((path / name).is_file() for name in _TOKENIZER_FILES) else None


def check_weights(path: Path, name: str) -> None:
    """Raises ModelError if a file of weights is missing or damaged. Reads their headers only."""
    from safetensors import SafetensorError, safe_open

    shards = weight_map(path).values()
    for file in sorted({*path.glob("*.safetensors"), *(path / shard for shard in shards)}):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"model {name} must have all of its weights, and {file.name} is missing or damaged "
                f"({first_line(error)}): maybe a pointer of Git LFS. Download it again."
            ) from None


def weight_map(path: Path) -> dict[str, str]:
    """File by weight, of a model in several files; empty for others. Raises ModelError if its index is damaged."""
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return {}
    try:
        files: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return dict(files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model {path} must have a readable {index.name}, got {type(error).__name__}: {first_line(error)}: maybe a "
            "pointer of Git LFS. Download it again."
        ) from None


def hub_info(
    kind: Literal["model", "dataset"], name: str, revision: str | None = None, *, timeout_s: float = 10.0
) -> "ModelInfo | DatasetInfo | None":
    """The Hugging Face hub's answer about a repository; None if it does not answer in time.

    Raises:
        ModelError, DataError: the hub has no such repository or revision.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub import errors as hf

    try:
        if kind == "model":
            return HfApi().model_info(name, revision=revision, timeout=timeout_s)
        return HfApi().dataset_info(name, revision=revision, timeout=timeout_s)
    except (hf.RepositoryNotFoundError, hf.RevisionNotFoundError, hf.HFValidationError):
        error = ModelError if kind == "model" else DataError
        at = f" at revision {revision}" if revision else ""
        raise error(
            f"{kind} {name}{at} cannot be found: it is not a local path, and {constants.ENDPOINT} does not have it or "
            "keeps it private. Check the name; for a private one run `hf auth login`."
        ) from None
    except (hf.HTTPError, OSError) as failure:  # type: ignore[attr-defined]
        logger.warning("%s cannot be reached: %s", constants.ENDPOINT, first_line(failure))
        return None


def looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _check_embedded_name(name: str) -> None:
    if name != embedded.NAME:
        raise ModelError(f"model.name must be {embedded.NAME} for an embedded model, got {name}.")


def _local_dir(name: str) -> Path | None:
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path.resolve(), name)
    if looks_like_path(name):
        raise ModelError(f"model directory {name} does not exist. Give a directory with config.json, or a hub name.")
    return None


def _checked(path: Path, name: str) -> Path:
    if not (path / "config.json").is_file():
        raise ModelError(f"model {name} must have a config.json, and {path} has none.")
    if not any(path.glob("*.safetensors")):
        raise ModelError(_no_weights(name))
    return path


def _no_weights(name: str) -> str:
    return (
        f"model {name} must have *.safetensors weights, and has none: pickled ones can run code and are never "
        "loaded. Convert it with save_pretrained, or choose another."
    )


def _snapshot(config: ModelConfig, *, offline: bool) -> Path:
    from huggingface_hub import errors as hf
    from huggingface_hub import snapshot_download

    allow = [*_ALLOW, "*.py"] if config.trust_remote_code else _ALLOW
    try:
        folder = snapshot_download(
            config.name,
            revision=config.revision,
            allow_patterns=allow,
            ignore_patterns=_IGNORE,
            local_files_only=offline,
        )
    except (hf.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]
        reason = "the hub cannot be reached and it is not in the cache" if offline else first_line(error)
        raise ModelError(
            f"model {config.name} cannot be downloaded: {reason}. Go online, set HF_ENDPOINT to a mirror, or set "
            f"model.name to a local directory or {embedded.NAME}."
        ) from None
    return Path(folder)


def _modelscope_snapshot(config: ModelConfig) -> Path:
    modelscope = import_modelscope(ModelError)
    allow = [*_ALLOW, "*.py"] if config.trust_remote_code else _ALLOW
    arguments = {"revision": config.revision, "allow_patterns": allow, "ignore_patterns": _IGNORE}
    try:
        return Path(modelscope.snapshot_download(config.name, **arguments))
    except Exception as online:  # the library has no common error class
        try:
            return Path(modelscope.snapshot_download(config.name, local_files_only=True, **arguments))
        except Exception:
            reason = first_line(online)
            raise ModelError(f"model {config.name} cannot be downloaded from ModelScope: {reason}") from None


def _modelscope_has(name: str) -> bool:
    return bool(import_modelscope(ModelError).HubApi().repo_exists(name, repo_type="model"))


def import_modelscope(error: type[ModelError] | type[DataError]) -> ModuleType:
    """The modelscope library, an extra. Raises ``error`` if it is not installed."""
    try:
        return importlib.import_module("modelscope")
    except ImportError:
        raise error("hub: modelscope needs the modelscope library. Run `pip install modelscope`.") from None
