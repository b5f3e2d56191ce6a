"""All completions of the newest GRPO steps, ``samples/newest/``: a file per step, deleted once newer ones are there."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.files import append_jsonl, sync
from pipeline.runs.records import Row

NUM_STEPS = 5


def newest_path(run_dir: str | Path) -> Path:
    return Path(run_dir) / "samples" / "newest"


def write_newest(run_dir: str | Path, rows: Sequence[Row], step: int) -> None:
    """Record a step that is newer than all others. Its completions are read once its row of metrics is there."""
    directory = newest_path(run_dir)
    directory.mkdir(exist_ok=True)
    append_jsonl(directory / f"step_{step:06d}.jsonl", rows)
    for path in sorted(directory.glob("step_*.jsonl"), key=_step)[:-NUM_STEPS]:
        path.unlink()


def truncate_newest(run_dir: str | Path, last_step: int) -> None:
    """Delete the steps after ``last_step``."""
    for path in newest_path(run_dir).glob("step_*.jsonl"):
        if _step(path) > last_step:
            path.unlink()


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step_"))


def sync_newest(run_dir: str | Path) -> None:
    """Wait until all steps are on the disk."""
    if (directory := newest_path(run_dir)).exists():
        for path in (*directory.iterdir(), directory):
            sync(path)
