"""The ledger of a run, ``metrics/ledger.parquet/``: a row per rollout group of a GRPO stage, and what became of it.

The directory reads as one table: ``pandas.read_parquet``. Its files are parts of at most ``ROWS_PER_PART`` rows and one
more step. Only the last one grows: it is replaced whole with every step, so a kill leaves the old file or the new one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal, get_args

from pipeline.errors import CheckpointError, first_line
from pipeline.files import sync, write_table
from pipeline.types import RolloutGroup

Use = Literal["trained", "no_variance", "ungraded", "truncated", "refilled", "surplus", "stage_ended"]
USED: tuple[Use, ...] = ("trained", "no_variance", "ungraded", "truncated")
"""The group stands for its place in the batch, and counts in the step's metrics. All but the first have no gradient:
equal rewards, fewer than two completions that could be graded, or all that it could learn from was cut off."""
REJECTED: tuple[Use, ...] = ("refilled", "surplus")
"""Another group took its place. A dynamic sampler drops these: rewards are equal, or all places were taken."""
USES: tuple[Use, ...] = get_args(Use)
"""The last one: it was asked for ahead, and its stage ended first."""
ROWS_PER_PART = 2048


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One rollout group."""

    stage: str
    step: int
    """Of the run, as in metrics.jsonl, from 1: where the group was used or dropped. ``stage_ended``: the last one."""
    position: int
    """Its place in the batch of all learners, from 0."""
    step_asked: int
    """Steps that were done when it was asked for: the policy's version then."""
    problem_id: str
    seeds: tuple[int, ...]
    """Of each completion, as asked for: engines use them with ``rollout.exact_seeds``."""
    weight_attempt: int
    oldest_version: int
    newest_version: int
    """Steps behind the weights that wrote its first tokens, and its last."""
    checksum: str | None
    """Of the weights that it was begun with."""
    engine: str | None
    """Name and process."""
    order: int | None
    """Groups that this process began before this one."""
    num_correct: int
    num_incorrect: int
    num_unparsed: int
    num_timeout: int
    num_bad_gold: int
    num_truncated: int
    """Completions cut off at their maximum length, whatever their outcome."""
    num_tokens: int
    """Of all completions."""
    reward_mean: float | None
    """None, as those below: it was never graded."""
    reward_std: float | None
    reward_min: float | None
    reward_max: float | None
    use: str
    """A ``Use``."""

    @property
    def num_completions(self) -> int:
        """Graded ones."""
        return self.num_correct + self.num_incorrect + self.num_unparsed + self.num_timeout + self.num_bad_gold


def ledger_rows(
    groups: Sequence[RolloutGroup], uses: Sequence[Use], stage: str, step: int, step_asked: int, first_position: int = 0
) -> list[LedgerRow]:
    """One row per group.

    Args:
        groups: consecutive ones of a batch. One that was never answered has no completions; one that was never graded
            has no rewards.
        uses: what became of each.
        step, step_asked: see ``LedgerRow``.
        first_position: of the first group, in the batch of all learners.
    """
    return [
        _row(group, use, stage, step, step_asked, position)
        for position, (group, use) in enumerate(zip(groups, uses, strict=True), first_position)
    ]


def _row(group: RolloutGroup, use: Use, stage: str, step: int, step_asked: int, position: int) -> LedgerRow:
    totals, record = [reward.total for reward in group.rewards], group.record
    outcomes = Counter(reward.outcome for reward in group.rewards)
    return LedgerRow(
        stage=stage,
        step=step,
        position=position,
        step_asked=step_asked,
        problem_id=group.problem.id,
        seeds=tuple(group.seeds),
        weight_attempt=group.weight_id.attempt,
        oldest_version=group.weight_id.step,
        newest_version=record.newest_step if record else group.weight_id.step,
        checksum=record.checksum if record else None,
        engine=record.engine if record else None,
        order=record.order if record else None,
        num_correct=outcomes["correct"],
        num_incorrect=outcomes["incorrect"],
        num_unparsed=outcomes["unparsed"],
        num_timeout=outcomes["timeout"],
        num_bad_gold=outcomes["bad_gold"],
        num_truncated=sum(completion.stop_reason == "length" for completion in group.completions),
        num_tokens=sum(len(completion.token_ids) for completion in group.completions),
        reward_mean=fmean(totals) if totals else None,
        reward_std=pstdev(totals) if totals else None,
        reward_min=min(totals, default=None),
        reward_max=max(totals, default=None),
        use=use,
    )


def ledger_path(run_dir: str | Path) -> Path:
    return Path(run_dir) / "metrics" / "ledger.parquet"


class LedgerWriter:
    """Adds rows to the ledger. One writer per run: rank 0.

    Args:
        last_step: rows of later steps, which an earlier attempt wrote, are dropped first.
    """

    def __init__(self, run_dir: str | Path, last_step: int) -> None:
        self._directory = ledger_path(run_dir)
        truncate_ledger(run_dir, last_step)
        parts = _parts(self._directory)
        self._number = max(len(parts), 1)
        self._open = _read_part(parts[-1]) if parts else _table([])
        """The rows of the newest part."""

    def write(self, rows: Sequence[LedgerRow]) -> None:
        """Add rows, those of one step or of several in their order."""
        import pyarrow as pa

        if len(self._open) >= ROWS_PER_PART:
            self._number, self._open = self._number + 1, _table([])
        self._open = pa.concat_tables([self._open, _table(rows)]).combine_chunks()
        self._directory.mkdir(parents=True, exist_ok=True)
        write_table(self._directory / _part_name(self._number), self._open)

    def sync(self) -> None:
        """Wait until the names of all parts are on the disk, as their rows are."""
        if self._directory.exists():
            sync(self._directory)


def truncate_ledger(run_dir: str | Path, last_step: int) -> None:
    """Drop the rows of steps after ``last_step``, and what a killed writer left half-written."""
    directory = ledger_path(run_dir)
    for hidden in directory.glob(".*.tmp"):
        hidden.unlink()
    for path in reversed(_parts(directory)):
        table = _read_part(path)
        kept = table.filter([step <= last_step for step in table["step"].to_pylist()])
        if not len(kept):
            path.unlink()
        elif len(kept) < len(table):
            write_table(path, kept)


class LedgerFiles:
    """Reads a ledger again and again while it grows: only the parts that have changed."""

    def __init__(self, run_dir: str | Path) -> None:
        self._directory = ledger_path(run_dir)
        self._parts: dict[Path, tuple[tuple[int, int], list[LedgerRow]]] = {}

    def read(self) -> list[LedgerRow]:
        """All rows, in the order in which they were written; empty without a ledger.

        Raises:
            CheckpointError: a part is corrupt or missing.
        """
        before, self._parts = self._parts, {}
        for number, path in enumerate(_parts(self._directory), 1):
            if path.name != _part_name(number):
                raise CheckpointError(
                    f"{path.parent} must hold {_part_name(number)}, got {path.name}: a part is missing."
                )
            self._parts[path] = _read_rows(path, before.get(path))
        return [row for _, rows in self._parts.values() for row in rows]


def read_ledger(run_dir: str | Path) -> list[LedgerRow]:
    """All rows of ``LedgerFiles.read``, once."""
    return LedgerFiles(run_dir).read()


def _read_rows(
    path: Path, known: tuple[tuple[int, int], list[LedgerRow]] | None
) -> tuple[tuple[int, int], list[LedgerRow]]:
    """The rows of a part, with its inode and time, which every replacement changes."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise CheckpointError(f"{path} must stay while it is read: a resumed run has just removed it.") from None
    version = (status.st_ino, status.st_mtime_ns)
    if known and known[0] == version:
        return known
    rows = _read_part(path).to_pylist()
    return version, [LedgerRow(**row | {"seeds": tuple(row["seeds"])}) for row in rows]


def _part_name(number: int) -> str:
    return f"part_{number:05d}.parquet"


def _parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("part_*.parquet"))


def _read_part(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    try:
        table = pq.ParquetFile(path).read().select(schema.names).cast(schema)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise CheckpointError(
            f"{path} must hold rows of a ledger: the file is corrupt ({first_line(error)})."
        ) from None
    if empty := [name for name in schema.names if name not in _MAY_BE_NULL and table[name].null_count]:
        raise CheckpointError(f"{path} must have a {empty[0]} in every row: the file is corrupt.")
    return table


def _table(rows: Sequence[LedgerRow]) -> Any:
    import pyarrow as pa

    schema = _schema()
    return pa.Table.from_pylist([{name: getattr(row, name) for name in schema.names} for row in rows], schema=schema)


def _schema() -> Any:
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "tuple": pa.list_(pa.int64())}
    return pa.schema([(name, types[str(kind).removesuffix(" | None")]) for name, kind in _TYPES.items()])


_TYPES = {field.name: getattr(field.type, "__name__", str(field.type)) for field in fields(LedgerRow)}
_MAY_BE_NULL = {name for name, kind in _TYPES.items() if kind.endswith(" | None")}
