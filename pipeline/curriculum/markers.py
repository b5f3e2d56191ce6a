"""Markers of finished stages: ``results/<key>.json`` of a search. A stage that has one is never trained again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.files import write_json


def write_marker(directory: Path, key: str, result: Mapping[str, Any]) -> None:
    """Mark a stage as finished. The last thing a stage does, after its checkpoint and evaluation.

    Args:
        result: plain JSON with ``score``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / f"{key}.json", {"key": key, **result})


def read_markers(directory: Path) -> dict[str, dict[str, Any]]:
    """Results of the finished stages by key; empty before the first one.

    Raises:
        CheckpointError: a marker is corrupt.
    """
    results = {}
    for path in sorted(directory.glob("*.json")):
        try:
            result = json.loads(path.read_text())
            results[str(result["key"])] = result
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error!r}. Delete it to train its stage again.") from None
    return results
