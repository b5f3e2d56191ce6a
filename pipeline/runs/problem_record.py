"""The problems of a run's GRPO stages, ``problems/<stage>.parquet``, including those that were never tried."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.data.table import ProblemTable, described
from pipeline.errors import CheckpointError, first_line
from pipeline.files import write_table
from pipeline.runs.records import Row, read_jsonl

FIELDS = ("problem_id", "level", "type", "source", "question", "gold")


def problems_path(run_dir: str | Path) -> Path:
    return Path(run_dir) / "problems"


def write_problems(run_dir: str | Path, stage: str, tables: Sequence[ProblemTable]) -> None:
    """Record what a stage can ask.

    Args:
        tables: its own problems, and those of its replay buffer.
    """
    import pyarrow as pa

    problems_path(run_dir).mkdir(exist_ok=True)
    batches = [batch for table in tables for batch in described(table)]
    table = pa.Table.from_batches(batches).rename_columns(FIELDS)
    write_table(problems_path(run_dir) / f"{stage}.parquet", table)


def read_problems(run_dir: str | Path) -> dict[str, Row]:
    """The ``FIELDS`` of every recorded problem, by id. For a run of an earlier version, they come from ``samples/``.

    Raises:
        CheckpointError: a file is corrupt.
    """
    paths = recorded_stages(run_dir)
    rows = (row for path in paths for row in _read(path)) if paths else _sampled(Path(run_dir))
    problems: dict[str, Row] = {}
    for row in rows:
        problems.setdefault(row["problem_id"], row)
    return problems


def recorded_stages(run_dir: str | Path) -> list[Path]:
    """The files of stages that have begun, oldest first."""
    return sorted(problems_path(run_dir).glob("*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _read(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Row] = pq.ParquetFile(path).read().select(list(FIELDS)).to_pylist()
        return rows
    except (OSError, KeyError, pa.ArrowException) as error:
        raise CheckpointError(f"{path} must hold problems: the file is corrupt ({first_line(error)}).") from None


def _sampled(run_dir: Path) -> Iterator[Row]:
    for path in sorted((run_dir / "samples").glob("step_*.jsonl")):
        for row in read_jsonl(path):
            yield {name: None if (value := row.get(name)) is None else str(value) for name in FIELDS}
