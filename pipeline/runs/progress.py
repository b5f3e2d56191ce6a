"""Live progress of a run on the driver's console, read from its metrics file."""

import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.runs.eta import PlannedStage, StepTime, time_left
from pipeline.runs.metrics_log import metrics_path
from pipeline.runs.records import Row, number, parse_row
from pipeline.runs.tail import Tail

logger = logging.getLogger(__name__)

_WATCHED = {
    "sft": {
        "loss": "loss {:.4f}",
        "token_accuracy": "accuracy {:.1%}",
        "learner_tokens_per_s": "{:.0f} tokens/s",
        "num_skipped_updates": "{:.0f} updates skipped",
    },
    "memory_sft": {
        "loss": "loss {:.4f}",
        "token_accuracy": "accuracy {:.1%}",
        "memory_similarity": "similarity {:.3f}",
        "num_skipped_updates": "{:.0f} updates skipped",
    },
    "router": {
        "loss": "loss {:.4f}",
        "recall_at_1": "recall@1 {:.1%}",
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

STALLED_S = 600.0


def follow_progress(
    run_dir: str | Path,
    stages: Sequence[PlannedStage],
    stop: threading.Event,
    poll_s: float = 0.5,
    stalled_s: float = STALLED_S,
) -> None:
    """Show the run's progress until ``stop`` is set: a live line in a terminal, otherwise one line per step.

    Meant for a thread of the driver that starts before the run writes anything. If rows exist already (a resumed run),
    the last of them stands for all.

    Args:
        stages: all stages of the run, in order.
        stalled_s: seconds without a new step after which a line says so, and says it again each time as many have
            passed.
    """
    try:
        show = _show_live if sys.stdout.isatty() else _show_plain
        show(_Feed(run_dir, stages), _StallAlarm(stalled_s, Path(run_dir) / "logs"), stop, poll_s)
    except Exception:  # the display must never stop the run
        logger.warning("progress display stopped; the run continues", exc_info=True)


def _show_plain(feed: "_Feed", alarm: "_StallAlarm", stop: threading.Event, poll_s: float) -> None:
    while True:
        is_stopping = stop.is_set()
        updates = feed.poll()
        for update in updates:
            print(f"step {update.step}/{feed.num_steps}", update.stage, *update.values, sep="  ", flush=True)
        alarm.check(has_moved=bool(updates))
        if is_stopping and not updates:
            return
        stop.wait(poll_s)


def _show_live(feed: "_Feed", alarm: "_StallAlarm", stop: threading.Event, poll_s: float) -> None:
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
            updates = feed.poll()
            alarm.check(has_moved=bool(updates))
            for update in updates[-1:]:
                values = "  ".join(update.values)
                progress.update(task, description=update.stage, completed=update.step, values=values)


class _StallAlarm:
    """Covers what no wait reports: long work, and learners that wait for each other in a collective operation."""

    def __init__(self, stalled_s: float, logs: Path) -> None:
        self._stalled_s, self._logs = stalled_s, logs
        self._moved_at = self._quiet_since = time.monotonic()

    def check(self, *, has_moved: bool) -> None:
        now = time.monotonic()
        if has_moved:
            self._moved_at = self._quiet_since = now
        elif now - self._quiet_since > self._stalled_s:
            self._quiet_since = now
            minutes = (now - self._moved_at) / 60
            print(f"no step has ended for {minutes:.0f} min; what each process does is in {self._logs}", flush=True)


class _Update(NamedTuple):
    step: int
    stage: str
    values: list[str]


class _Feed:
    """New rows of the run, as text to show."""

    def __init__(self, run_dir: str | Path, stages: Sequence[PlannedStage]) -> None:
        self.num_steps = sum(stage.num_steps for stage in stages)
        self._stages = stages
        self._new_rows = _Rows(metrics_path(run_dir))
        self._steps: list[StepTime] = []
        self._previous: Row | None = None
        """The row before the next one, if both are written while we watch: the time between them was no downtime."""
        self._is_first_poll = True

    def poll(self) -> list[_Update]:
        """One update per new row; the first time, one for all rows that exist already."""
        rows = self._new_rows.poll()
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


class _Rows:
    """New rows of a metrics file. Rows that stay when a resumed run cuts the file back are given once."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path)
        self._shown: dict[int, float | None] = {}

    def poll(self) -> list[Row]:
        parsed = [row for line in self._tail.poll() if (row := parse_row(line)) and isinstance(row.get("step"), int)]
        rows = [row for row in parsed if self._shown.get(row["step"], -1) != row.get("time")]
        self._shown |= {row["step"]: row.get("time") for row in rows}
        return rows


def _values(row: Row) -> list[str]:
    watched = _WATCHED.get(str(row.get("kind", "")), {})
    values = {key: value for key in watched if (value := number(row, key)) is not None}
    values = {key: value for key, value in values.items() if value or key not in _SHOWN_UNLESS_0}
    return [watched[key].format(value) for key, value in values.items()]
