"""Finds and loads what is evaluated: a run with an explicit memory, a memory's file, or a model without one."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config import DataConfig, ModelConfig
from pipeline.config.evaluation import LoadingConfig
from pipeline.config.output import OutputConfig
from pipeline.data.omcq import KnowledgeEntry, has_objects, read_knowledge, read_texts
from pipeline.errors import CheckpointError, ConfigError
from pipeline.evaluation.merging import load_directory
from pipeline.evaluation.models import find_model, loading_config
from pipeline.models.hub import resolve_model
from pipeline.models.memory.attach import memory_of
from pipeline.models.memory.files import MemoryFile, read_memory
from pipeline.models.memory.loading import load_memory_model
from pipeline.models.memory.memory import ExplicitMemory
from pipeline.models.policy import load_policy
from pipeline.models.tokenizer import Tokenizer, load_tokenizer
from pipeline.runs.directory import RunDirectory


@dataclass(frozen=True)
class Source:
    """The model to evaluate, as named on the command line."""

    run: str | None = None
    """A run's directory, or ``latest``."""
    memory: Path | None = None
    """A file ``memory_step_N.safetensors``. None: that of the run, if it has one."""
    model: str | None = None
    """A model without memory, a run or an adapter; with ``memory``, its backbone. None: that of the run."""
    knowledge: Path | None = None
    """Entries of the bank. None: those that the memory was trained with."""
    loading: LoadingConfig = field(default_factory=LoadingConfig)


@dataclass(frozen=True)
class Evaluated:
    """A model that is ready to be asked."""

    name: str
    model: Any
    tokenizer: Tokenizer
    texts: Sequence[str]
    """The entries of its bank; empty without a memory."""
    data: DataConfig
    """How it is asked."""
    knowledge_path: Path | None = None
    """The file of the entries."""

    @cached_property
    def knowledge(self) -> Sequence[KnowledgeEntry]:
        """The entries with their objects; empty if they are bare sentences."""
        return read_knowledge(self.knowledge_path) if self.knowledge_path and has_objects(self.knowledge_path) else ()

    @property
    def memory(self) -> ExplicitMemory | None:
        return memory_of(self.model)


def load_evaluated(source: Source, cache: Path) -> Evaluated:
    """Load a model, with its memory if it has one.

    Args:
        cache: directory of knowledge caches.

    Raises:
        ConfigError: nothing to evaluate is named.
        CheckpointError: the run has neither a final memory nor a final model.
        ModelError: the model cannot be loaded, or the memory was trained with another backbone.
        DataError: the knowledge cannot be read, or does not fit into the bank.
    """
    if source.run is None and source.memory is None and source.model is None:
        raise ConfigError("--run, --memory or --model must be given: there is nothing to evaluate without one.")
    run = RunDirectory.open(source.run, OutputConfig().root) if source.run else None
    path = source.memory or (final_memory(run) if run else None)
    if path is None:
        return _without_memory(source, run)
    return _with_memory(source, read_memory(path), run or _run_of(path), cache)


def final_memory(run: RunDirectory) -> Path | None:
    """The memory that a run ended with; None if it trained none."""
    files = list(run.final_memory.glob("memory_step_*.safetensors"))
    if not files and run.load_config().memory:
        raise CheckpointError(
            f"run {run.path} must have a final memory: it is unfinished, or its output.save_final_model is false. "
            "Evaluate the memory of a checkpoint with --memory FILE."
        )
    return max(files, key=lambda file: int(file.stem.rpartition("_")[2]), default=None)


def _run_of(path: Path) -> RunDirectory | None:
    """The run whose directory a file is in."""
    folders = (folder for folder in path.resolve().parents if (folder / "experiment_config.json").is_file())
    return next(map(RunDirectory, folders), None)


def _with_memory(source: Source, file: MemoryFile, run: RunDirectory | None, cache: Path) -> Evaluated:
    config = run.load_config() if run else None
    if source.model:
        model = _named(source.model, source.loading)
    elif config:
        model = _safe(config.model, source.loading)
    else:
        raise ConfigError(f"--model must name the backbone of {file.path}, which is not in a run's directory.")
    data = config.data if config else DataConfig()
    path = resolve_model(model)
    tokenizer = load_tokenizer(path, model, chat=data.uses_chat_template)
    knowledge = source.knowledge or Path(file.config.knowledge)
    texts = read_texts(knowledge)
    seed = config.seed if config else 0
    loaded = load_memory_model(path, model, file.config, tokenizer, texts, cache, seed, file)
    return Evaluated(str(file.path), loaded.backbone.eval(), tokenizer, texts, data, knowledge)


def _without_memory(source: Source, run: RunDirectory | None) -> Evaluated:
    name = source.model or str(run and run.path)
    found = find_model(name, name, source.loading)
    config = found.run_config()
    data = config.data if config else DataConfig()
    with tempfile.TemporaryDirectory() as scratch:
        path = load_directory(found, source.loading, Path(scratch))
        model = _named(str(path), source.loading)
        tokenizer = load_tokenizer(path, model, chat=data.uses_chat_template)
        return Evaluated(name, load_policy(path, model, frozen=True).eval(), tokenizer, (), data)


def _named(name: str, loading: LoadingConfig) -> ModelConfig:
    """Settings of a model that is named, on the best device there is."""
    return loading_config(name, loading).model_copy(update={"device": "auto"})


def _safe(model: ModelConfig, loading: LoadingConfig) -> ModelConfig:
    """A run's settings, except that only the user allows code to be run: the directory may be another person's."""
    changes = {"trust_remote_code": loading.trust_remote_code, "gradient_checkpointing": False}
    return model.model_copy(update=changes)
