"""``generation.json``: what the results of a generation depend on. A resumed generation must match it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.record import record_of, refuse_changes
from pipeline.files import write_json

RECORD_FILE = "generation.json"
_PARTS = ("model", "run", "cells", "compared", "settings")
"""The parts that records of all versions have."""


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
    digests: Mapping[str, Any] = field(default_factory=dict)
    """Of the tasks that come from the run's training data, and of all texts of ``compared``."""
    solver: Mapping[str, str] = field(default_factory=dict)
    """Files of a solver that is not the writer: digest by name. Empty in a dry run if they are not on this machine."""
    num_too_long: int = 0
    """Tasks that are left out because their prompts do not fit."""

    def write(self, directory: Path) -> None:
        write_json(directory / RECORD_FILE, asdict(self))

    def check(self, directory: Path) -> None:
        """Raise CheckpointError if the generation in the directory has a different record."""
        before, now = read_generation(directory), json.loads(json.dumps(asdict(self)))
        before["settings"]["loading"]["dtype"] = now["settings"]["loading"]["dtype"]
        if "digests" not in before:  # an earlier version compared nothing with the run's own data
            before["compared"] = now["compared"] | before["compared"]
        if not self.solver:
            before["solver"] = {}
        refuse_changes("generation", directory, now | before, now)


def read_generation(directory: Path) -> dict[str, Any]:
    """Raises CheckpointError if the directory has no record."""
    return record_of("generation", directory / RECORD_FILE, _PARTS)
