"""The stored completions of a step: those of ``rollouts/`` where they are recorded, otherwise of ``samples/``, or of
``samples/newest/``."""

from pathlib import Path

from pipeline.runs.newest_completions import newest_path
from pipeline.runs.records import Row, read_jsonl
from pipeline.runs.rollout_record import read_completions, recorded_steps
from pipeline.verifier.extract import extract


def stored_steps(run_dir: Path) -> set[int]:
    paths = (path for directory in _directories(run_dir) for path in directory.glob("step_*.jsonl"))
    sampled = (path.stem.removeprefix("step_") for path in paths)
    return {int(step) for step in sampled if step.isdecimal()} | set(recorded_steps(run_dir))


def completions(run_dir: Path, step: int) -> list[Row]:
    """Every stored completion of a step, in the order of its batch, with the answer that the verifier finds in it.

    ``position`` is that of its group in the batch; None in ``samples/``, which do not record it.

    Raises:
        CheckpointError: a file is corrupt.
    """
    rows = read_completions(run_dir, step)
    for directory in _directories(run_dir):
        rows = rows or read_jsonl(directory / f"step_{step:06d}.jsonl")
    return [_shown(row) for row in rows]


def _directories(run_dir: Path) -> tuple[Path, Path]:
    return run_dir / "samples", newest_path(run_dir)


def _shown(row: Row) -> Row:
    text, parts = str(row.get("text", row.get("completion", ""))), row.get("parts")
    return {
        "problem_id": str(row.get("problem_id")),
        "text": text,
        "answer": extract(text),
        "parts": parts if isinstance(parts, dict) else {},
        **{name: row.get(name) for name in ("position", "reward", "outcome", "stop_reason")},
    }
