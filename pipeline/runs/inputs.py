"""``inputs.json``: digests of the model's files and of the data that a run started with. Resuming compares them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config import Config, DataConfig, MemoryConfig, ModelConfig
from pipeline.data.sources import source_digest, split_expression
from pipeline.errors import CheckpointError, DataError
from pipeline.files import sha256, write_json
from pipeline.models.hub import model_files
from pipeline.types import SplitName

INPUTS_FILE = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """Everything from outside the run directory that a run's results depend on."""

    model: dict[str, Any]
    """Name, hub and resolved revision, and ``files``: digest by name."""
    data: dict[str, dict[str, str]]
    """By use, ``train`` or ``eval``: source by digest, for a search all that its chains use."""
    frozen: dict[str, dict[str, str]] = field(default_factory=dict)
    """Files of a solver and a teacher, by model: digest by name."""
    knowledge: str = ""
    """Digest of the entries of an explicit memory; empty without one."""

    @classmethod
    def of(
        cls, model: ModelConfig, model_path: Path, configs: Sequence[Config], frozen: Mapping[str, Path] | None = None
    ) -> "Inputs":
        """
        Args:
            configs: of all chains.
            frozen: directories of frozen models, by name.

        Raises:
            DataError: the data cannot be read.
        """
        described = model.model_dump(include={"name", "hub", "revision"})
        evaluated = [config.data for config in configs if config.eval.problems_per_level]
        return cls(
            described | {"files": model_files(model_path, with_code=model.trust_remote_code)},
            {"train": _digests([config.data for config in configs], "train"), "eval": _digests(evaluated, "eval")},
            {name: model_files(path, with_code=model.trust_remote_code) for name, path in (frozen or {}).items()},
            _knowledge_digest(configs[0].memory),
        )

    @classmethod
    def read(cls, run_path: Path) -> "Inputs | None":
        """The recorded inputs of a run; None if an earlier version started it and recorded none."""
        path = run_path / INPUTS_FILE
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}.") from None

    def write(self, run_path: Path) -> None:
        write_json(run_path / INPUTS_FILE, asdict(self))

    def joined(self, now: "Inputs") -> "Inputs":
        """These inputs, together with any further data that the resumed run uses."""
        return replace(self, data={use: {**before, **now.data[use]} for use, before in self.data.items()})

    def differences(self, now: "Inputs") -> list[str]:
        """One line for each file and data set that is no longer what it was."""
        models = [("model", self.model["files"], now.model["files"])]
        models += [(name, files, now.frozen.get(name, files)) for name, files in self.frozen.items()]
        files = [line for model in models for line in _file_differences(*model)]
        if self.knowledge != now.knowledge:
            files.append(f"memory.knowledge: was {self.knowledge or 'none'}, is {now.knowledge or 'none'}")
        return [*files, *self._data_differences(now)]

    def _data_differences(self, now: "Inputs") -> Iterator[str]:
        """A source may have another name, and a search more of them."""
        for use, before in self.data.items():
            present = now.data[use] or before  # evaluation may have been turned off
            for digest in before.keys() - present.keys():
                yield f"{use} data {before[digest]}: was {digest}, is {', '.join(present)}"


def _file_differences(model: str, before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{model} file {name}: was {before.get(name, 'missing')}, is {now.get(name, 'missing')}"


def _knowledge_digest(memory: MemoryConfig | None) -> str:
    try:
        return sha256(Path(memory.knowledge))[:16] if memory else ""
    except OSError as error:
        raise DataError(f"memory.knowledge cannot be read: {error.filename}: {error.strerror}.") from None


def _digests(configs: Sequence[DataConfig], split: SplitName) -> dict[str, str]:
    found: dict[str, str] = {}
    for config in {config.model_dump_json(): config for config in configs}.values():
        digest = hashlib.sha256(source_digest(config, split).encode()).hexdigest()[:16]
        found[digest] = ", ".join(filter(None, (config.name, config.subset, split_expression(config, split))))
    return found
