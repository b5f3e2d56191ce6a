"""The metrics of a run: one row per step, written, read back and cut back. docs/metrics.md lists the keys of a row."""

import json
import math
import os
import time
from pathlib import Path

from pipeline.config import TrackingConfig
from pipeline.errors import CheckpointError
from pipeline.files import write_atomic
from pipeline.runs.records import Row, number, read_config, read_jsonl
from pipeline.runs.trackers import Point, TrackedRun, Trackers


def metrics_path(run_dir: str | Path) -> Path:
    return Path(run_dir) / "metrics" / "metrics.jsonl"


def ungraded_path(run_dir: str | Path) -> Path:
    """Examples of completions that could not be graded."""
    return Path(run_dir) / "samples" / "ungraded.jsonl"


class MetricsWriter:
    """Appends rows to ``metrics/metrics.jsonl`` and hands their numbers to trackers. One writer per run: rank 0."""

    def __init__(
        self,
        run_dir: str | Path,
        settings: TrackingConfig = TrackingConfig(),  # noqa: B008, frozen
        last_step: float = math.inf,
    ) -> None:
        """
        Args:
            last_step: rows after it, of an earlier attempt, are dropped, and so is a half-written last line.
        """
        path = metrics_path(run_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        truncate_metrics(run_dir, last_step)
        past = read_metrics(run_dir)
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

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        self._trackers.close()


def _point(row: Row) -> Point:
    values = {key: value for key in row if key not in ("step", "time") and (value := number(row, key)) is not None}
    return Point(values, row["step"], number(row, "time") or time.time())


def read_metrics(run_dir: str | Path) -> list[Row]:
    """All rows so far, [] if there is no file yet. A last line cut short by a kill is left out.

    Raises:
        CheckpointError: another line is not a row.
    """
    path = metrics_path(run_dir)
    rows = read_jsonl(path)
    for index, row in enumerate(rows, start=1):
        if not isinstance(row.get("step"), int):
            raise CheckpointError(f"{path} line {index} must have an integer step, got {row.get('step')!r}.")
    return rows


def truncate_metrics(run_dir: str | Path, last_step: float) -> int:
    """Drop the rows after ``last_step``. Returns how many were dropped.

    A half-written last line is removed too; it is not counted.
    """
    return _truncate(metrics_path(run_dir), read_metrics(run_dir), last_step)


def truncate_ungraded(run_dir: str | Path, last_step: float) -> int:
    """Drop the examples of ungraded completions after ``last_step`` in the same way."""
    path = ungraded_path(run_dir)
    return _truncate(path, read_jsonl(path), last_step)


def _truncate(path: Path, rows: list[Row], last_step: float) -> int:
    """Kept lines stay byte for byte as they were."""
    is_kept = [row["step"] <= last_step for row in rows]
    if path.exists():
        before = path.read_bytes()
        lines = before.split(b"\n")
        data = b"".join(line + b"\n" for line, kept in zip(lines, is_kept, strict=False) if kept)
        if data != before:
            write_atomic(path, data)
    return is_kept.count(False)
