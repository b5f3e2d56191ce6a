"""Files of a run directory read back, without torch: rows of JSONL files, evaluations, settings, counts, memory."""

import json
import math
from pathlib import Path
from typing import Any, cast

from pipeline.config.training import preset_settings
from pipeline.data.selection import natural_order
from pipeline.errors import CheckpointError
from pipeline.files import safe_name

Row = dict[str, Any]
"""One JSON object."""


def parse_row(line: bytes) -> Row | None:
    """The JSON object of one line; None if the line is anything else."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def number(row: Row, key: str) -> float | None:
    """The value of ``key``, or None if it is missing, null or not a finite number."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def read_jsonl(path: Path) -> list[Row]:
    """The objects of a JSONL file, [] if it does not exist. A last line cut short by a kill is left out.

    Raises:
        CheckpointError: another line is not a JSON object.
    """
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for index, line in enumerate(lines, start=1):
        if (row := parse_row(line)) is None:
            raise CheckpointError(f"{path} line {index} must be a JSON object, got {line[:60]!r}: the file is corrupt.")
        rows.append(row)
    last = parse_row(tail)
    return rows if last is None else [*rows, last]


def read_evaluations(run_dir: str | Path) -> list[Row]:
    """Every ``eval/<name>.json``, by step, ``before`` first; levels in natural order.

    Raises:
        CheckpointError: a file is not an evaluation.
    """
    evaluations = []
    for path in sorted((Path(run_dir) / "eval").glob("*.json")):
        evaluation = parse_row(path.read_bytes())
        if evaluation is None or not {"name", "step", "levels", "overall"} <= evaluation.keys():
            raise CheckpointError(f"{path} must hold an evaluation (name, step, levels, overall): the file is corrupt.")
        evaluation["levels"] = dict(sorted(evaluation["levels"].items(), key=lambda item: natural_order(item[0])))
        evaluations.append(evaluation)
    return sorted(evaluations, key=lambda e: (e["step"], e["name"] != "before"))


def read_config(run_dir: str | Path) -> Row:
    """The settings the run was started with, as plain JSON; empty if they were not recorded.

    Raises:
        CheckpointError: the file is not JSON.
    """
    return cast(Row, _read_json(Path(run_dir) / "experiment_config.json"))


def stage_settings(config: Row, kind: str, stage: str) -> Row:
    """The settings of a stage in a run's recorded settings, the stage's own and those of its presets applied.

    Args:
        stage: its name as in metrics.jsonl: a configured stage with ``each_level`` stands for one of every level.
    """
    stages: list[Row] = [each for each in config.get("stages", []) if _names(each, stage)]
    own: Row = max(stages, key=lambda each: len(str(each.get("name"))), default={}).get("settings", {})
    presets = preset_settings(own) if kind == "grpo" else {}
    return {**config.get(kind, {}), **presets, **own}


def _names(configured: Row, stage: str) -> bool:
    name = str(configured.get("name"))
    return name == stage or bool(configured.get("each_level") and stage.startswith(safe_name(f"{name}_")))


def read_data_counts(run_dir: str | Path) -> dict[str, Row]:
    """For each stage, how much it trained on and what was too long; empty if that was not recorded.

    Raises:
        CheckpointError: the file is not JSON.
    """
    return cast(dict[str, Row], _read_json(Path(run_dir) / "data.json"))


def read_memory(run_dir: str | Path) -> dict[str, dict[str, Row]]:
    """For each stage and point, memory figures; empty if they were not recorded.

    Raises:
        CheckpointError: the file is not JSON.
    """
    return cast(dict[str, dict[str, Row]], _read_json(Path(run_dir) / "memory.json"))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path} must be JSON: {error}") from None
