"""What a run records, written and read back: metrics rows, evaluations, and live progress.

docs/metrics.md lists the keys of a row.
"""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

from pipeline.config import TrackingConfig
from pipeline.data.selection import natural_order
from pipeline.errors import CheckpointError
from pipeline.files import write_atomic
from pipeline.runs.trackers import Point, TrackedRun, Trackers

logger = logging.getLogger(__name__)

Row = dict[str, Any]


class MetricsWriter:
    """Appends rows to ``metrics/metrics.jsonl`` and hands their numbers to trackers. One writer per run: rank 0."""

    def __init__(self, run_dir: str | Path, settings: TrackingConfig = TrackingConfig()) -> None:  # noqa: B008, frozen
        path = metrics_path(run_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        past = read_metrics(run_dir)
        truncate_metrics(run_dir, max((row["step"] for row in past), default=0))
        self._file = path.open("a", encoding="utf-8")
        name = settings.run_name or Path(run_dir).resolve().name
        points = [_point(row) for row in past]
        self._trackers = Trackers(TrackedRun(settings, path.parent, name, read_config(run_dir), points))

    def write(self, row: Row) -> None:
        """Append one row; NaN and infinity, which JSON lacks, become null."""
        row = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self._trackers.log(_point(row))

    def close(self) -> None:
        self._file.close()
        self._trackers.close()


def _point(row: Row) -> Point:
    values = {key: value for key in row if key not in ("step", "time") and (value := number(row, key)) is not None}
    return Point(values, row["step"], number(row, "time") or time.time())


def metrics_path(run_dir: str | Path) -> Path:
    return Path(run_dir) / "metrics" / "metrics.jsonl"


def ungraded_path(run_dir: str | Path) -> Path:
    """Examples of completions that could not be graded."""
    return Path(run_dir) / "samples" / "ungraded.jsonl"


def number(row: Row, key: str) -> float | None:
    """The value of ``key``, or None where it is missing, null or no number."""
    value = row.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def read_metrics(run_dir: str | Path) -> list[Row]:
    """All rows so far; none when there is no file yet. A last line cut short by a kill is left out.

    Raises:
        CheckpointError: another line is not a row.
    """
    path = metrics_path(run_dir)
    rows = read_jsonl(path)
    for index, row in enumerate(rows, start=1):
        if not isinstance(row.get("step"), int):
            raise CheckpointError(f"{path} line {index} must have an integer step, got {row.get('step')!r}.")
    return rows


def truncate_metrics(run_dir: str | Path, last_step: int) -> int:
    """Cut the metrics back to rows with step <= ``last_step``. Returns how many rows were dropped.

    Call it before a MetricsWriter is made. A half-written last line goes too, uncounted.
    """
    return _cut_back(metrics_path(run_dir), read_metrics(run_dir), last_step)


def truncate_ungraded(run_dir: str | Path, last_step: int) -> int:
    """Cut the examples of ungraded completions back in the same way."""
    path = ungraded_path(run_dir)
    return _cut_back(path, read_jsonl(path), last_step)


def _cut_back(path: Path, rows: list[Row], last_step: int) -> int:
    num_kept = sum(row["step"] <= last_step for row in rows)
    if path.exists():
        before = path.read_bytes()
        lines = before.split(b"\n")
        data = b"".join(line + b"\n" for row, line in zip(rows, lines, strict=False) if row["step"] <= last_step)
        if data != before:
            write_atomic(path, data)
    return len(rows) - num_kept


def read_jsonl(path: Path) -> list[Row]:
    """The objects of a JSONL file, [] where it is missing. See read_metrics on broken lines."""
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for index, line in enumerate(lines, start=1):
        if (row := _parse(line)) is None:
            raise CheckpointError(f"{path} line {index} must be a JSON object, got {line[:60]!r}: the file is corrupt.")
        rows.append(row)
    last = _parse(tail)
    return rows if last is None else [*rows, last]


def read_evaluations(run_dir: str | Path) -> list[Row]:
    """Every ``eval/<name>.json``, by step, ``before`` first; levels in natural order.

    Raises:
        CheckpointError: a file is not an evaluation.
    """
    evaluations = []
    for path in sorted((Path(run_dir) / "eval").glob("*.json")):
        evaluation = _parse(path.read_bytes())
        if evaluation is None or not {"name", "step", "levels", "overall"} <= evaluation.keys():
            raise CheckpointError(f"{path} must hold an evaluation (name, step, levels, overall): the file is corrupt.")
        evaluation["levels"] = dict(sorted(evaluation["levels"].items(), key=lambda item: natural_order(item[0])))
        evaluations.append(evaluation)
    return sorted(evaluations, key=lambda e: (e["step"], e["name"] != "before"))


def read_config(run_dir: str | Path) -> Row:
    """The settings the run was started with; empty when they were not recorded.

    Raises:
        CheckpointError: the file is not JSON.
    """
    return _read_json(Path(run_dir) / "experiment_config.json")


def read_data_counts(run_dir: str | Path) -> dict[str, Row]:
    """By stage, what it trained on and what was too long; empty when that was not recorded.

    Raises:
        CheckpointError: the file is not JSON.
    """
    return _read_json(Path(run_dir) / "data.json")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path} must be JSON: {error}") from None


def _parse(line: bytes) -> Row | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
