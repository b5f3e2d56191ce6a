"""``generation.json``: what the results of a generation depend on. A resumed generation must match it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluation.record import record_of, refuse_changes
from pipeline.files import write_json

RECORD_FILE = "generation.json"


@dataclass(frozen=True)
class GenerationRecord:
    """Everything that the results depend on, as plain JSON values."""

    model: Mapping[str, Any]
    run: Mapping[str, Any]
    """The configuration that prompts, rewards and originals come from."""
    cells: Mapping[str, int]
    """Number of problems to keep of each kind, topic and level."""
    compared: Mapping[str, int]
    """Number of problems in each test set and in the other data that must not be repeated."""
    settings: Mapping[str, Any]

    def write(self, directory: Path) -> None:
        write_json(directory / RECORD_FILE, asdict(self))

    def check(self, directory: Path) -> None:
        """Raise CheckpointError if the generation in the directory has a different record."""
        before, now = read_generation(directory), json.loads(json.dumps(asdict(self)))
        before["settings"]["loading"]["dtype"] = now["settings"]["loading"]["dtype"]
        refuse_changes("generation", directory, before, now)


def read_generation(directory: Path) -> dict[str, Any]:
    """The record of a generation. Raises CheckpointError if the directory has none."""
    return record_of("generation", directory / RECORD_FILE, asdict(GenerationRecord({}, {}, {}, {}, {})))
