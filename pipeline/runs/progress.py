"""Live progress of a run on the driver's console, read from its metrics file."""

import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.runs.eta import PlannedStage, StepTime, time_left
from pipeline.runs.metrics_log import metrics_path
from pipeline.runs.records import Row, number, parse_row

logger = logging.getLogger(__name__)

_WATCHED = {
    "sft": {
        "loss": "loss {:.4f}",
        "token_accuracy": "accuracy {:.1%}",
        "learner_tokens_per_s": "{:.0f} tokens/s",
        "num_skipped_updates": "{:.0f} updates skipped",
    },
    "grpo": {
        "reward_mean": "reward {:.3f}",
        "correct_frac": "correct {:.1%}",
        "completion_length_mean": "length {:.0f}",
        "kl": "KL {:.4f}",
        "num_skipped_updates": "{:.0f} updates skipped",
    },
}
"""Values worth watching, by kind of stage. The loss of GRPO is not one of them: with ``mu`` 1 it is 0."""
_SHOWN_UNLESS_0 = ("kl", "num_skipped_updates")


def follow_progress(
    run_dir: str | Path, stages: Sequence[PlannedStage], stop: threading.Event, poll_s: float = 0.5
) -> None:
    """Show the run's progress until ``stop`` is set: a live line in a terminal, otherwise one line per step.

    Made for a thread of the driver, started before the run writes anything. Rows that exist already (a resumed run)
    are summed up by the last of them.

    Args:
        stages: all stages of the run, in order.
    """
    try:
        (_show_live if sys.stdout.isatty() else _show_plain)(_Feed(run_dir, stages), stop, poll_s)
    except Exception:  # the display must never stop the run
        logger.warning("progress display stopped; the run continues", exc_info=True)


def _show_plain(feed: "_Feed", stop: threading.Event, poll_s: float) -> None:
    while True:
        is_stopping = stop.is_set()
        updates = feed.poll()
        for update in updates:
            print(f"step {update.step}/{feed.num_steps}", update.stage, *update.values, sep="  ", flush=True)
        if is_stopping and not updates:
            return
        stop.wait(poll_s)


def _show_live(feed: "_Feed", stop: threading.Event, poll_s: float) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    bar = BarColumn(None, table_column=Column(max_width=12))  # gives way to the texts on a narrow terminal
    columns = (TextColumn("{task.description}"), bar, MofNCompleteColumn(), TextColumn("{task.fields[values]}"))
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task("starting", total=feed.num_steps or None, values="")
        is_stopping = False
        while not is_stopping:
            is_stopping = stop.wait(poll_s)
            for update in feed.poll()[-1:]:
                values = "  ".join(update.values)
                progress.update(task, description=update.stage, completed=update.step, values=values)


class _Update(NamedTuple):
    step: int
    stage: str
    values: list[str]


class _Feed:
    """New rows of the run, as text to show."""

    def __init__(self, run_dir: str | Path, stages: Sequence[PlannedStage]) -> None:
        self.num_steps = sum(stage.num_steps for stage in stages)
        self._stages = stages
        self._tail = _Tail(metrics_path(run_dir))
        self._steps: list[StepTime] = []
        self._previous: Row | None = None
        """The row before the next one, if both are written while we watch: the time between them was no downtime."""
        self._is_first_poll = True

    def poll(self) -> list[_Update]:
        """One update per new row; the first time, one for all rows that exist already."""
        rows = self._tail.poll()
        if self._is_first_poll:
            self._is_first_poll = False
            self._steps = [StepTime.from_row(row) for row in rows]
            return [self._update(row) for row in rows[-1:]]
        return [self._add(row) for row in rows]

    def _add(self, row: Row) -> _Update:
        self._steps.append(StepTime.from_row(row, self._previous))
        self._previous = row
        return self._update(row)

    def _update(self, row: Row) -> _Update:
        left = time_left(self._steps, self._stages)
        return _Update(row["step"], str(row.get("stage", "")), [*([str(left)] if left else []), *_values(row)])


class _Tail:
    """New rows of a growing metrics file, which may not exist yet, or be replaced by a shorter one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = self._offset = 0
        self._shown: dict[int, float | None] = {}

    def poll(self) -> list[Row]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            return []
        self._offset += len(whole) + bool(whole)
        parsed = [row for line in whole.split(b"\n") if (row := parse_row(line)) and isinstance(row.get("step"), int)]
        rows = [row for row in parsed if self._shown.get(row["step"], -1) != row.get("time")]
        self._shown |= {row["step"]: row.get("time") for row in rows}
        return rows


def _values(row: Row) -> list[str]:
    watched = _WATCHED.get(str(row.get("kind", "")), {})
    values = {key: value for key in watched if (value := number(row, key)) is not None}
    values = {key: value for key, value in values.items() if value or key not in _SHOWN_UNLESS_0}
    return [watched[key].format(value) for key, value in values.items()]
