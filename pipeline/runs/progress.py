"""Live progress of a run on the driver's console, read from its metrics file."""

import os
import sys
import threading
from collections import deque
from pathlib import Path
from statistics import median

from pipeline.runs.metrics_log import Row, _parse, logger, metrics_path, number


def follow_progress(run_dir: str | Path, total_steps: int, stop: threading.Event, poll_s: float = 0.5) -> None:
    """Show the run's progress until ``stop`` is set: a live line in a terminal, else a line per step.

    Made for a thread of the driver, started before the run has written anything. Rows that are there
    already (a resumed run) are summed up by the last of them.
    """
    try:
        (_follow_live if sys.stdout.isatty() else _follow_plain)(_Tail(run_dir), total_steps, stop, poll_s)
    except Exception:  # Whatever goes wrong with the display, the run goes on.
        logger.warning("progress display stopped; the run goes on", exc_info=True)


def _follow_plain(tail: "_Tail", total_steps: int, stop: threading.Event, poll_s: float) -> None:
    rows = tail.poll()[-1:]
    while True:
        stopping = stop.is_set()
        for row in rows:
            stage, values = _describe(row)
            eta = f"ETA {_clock(tail.eta_s(row, total_steps))}"
            print(f"step {row['step']}/{total_steps}", stage, *values, eta, sep="  ", flush=True)
        if stopping and not rows:
            return
        stop.wait(poll_s)
        rows = tail.poll()


def _follow_live(tail: "_Tail", total_steps: int, stop: threading.Event, poll_s: float) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(12), MofNCompleteColumn(), TextColumn("{task.fields[info]}"))
    with Progress(*columns) as progress:
        task = progress.add_task("starting", total=total_steps or None, info="")
        stopping = False
        while not stopping:
            stopping = stop.wait(poll_s)
            for row in tail.poll()[-1:]:
                stage, values = _describe(row)
                info = "  ".join([*values, f"ETA {_clock(tail.eta_s(row, total_steps))}"])
                progress.update(task, description=stage, completed=row["step"], info=info)


class _Tail:
    """New rows of a growing metrics file, which may be missing, or be replaced by a shorter one."""

    def __init__(self, run_dir: str | Path) -> None:
        self._path = metrics_path(run_dir)
        self._inode = self._offset = 0
        self._shown: dict[int, float | None] = {}
        self._recent: deque[float] = deque(maxlen=20)

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
        parsed = [row for line in whole.split(b"\n") if (row := _parse(line)) and isinstance(row.get("step"), int)]
        rows = [row for row in parsed if self._shown.get(row["step"], -1) != row.get("time")]
        for row in rows:
            self._shown[row["step"]] = row.get("time")
            self._recent.append(number(row, "step_s") or 0.0)
        return rows

    def eta_s(self, row: Row, total_steps: int) -> float:
        """At the pace of the last steps. Stages differ, so it is a guess until the last one."""
        return max(total_steps - row["step"], 0) * median(self._recent)


def _describe(row: Row) -> tuple[str, list[str]]:
    """The stage, and what to watch in this kind of row."""
    shown = [
        ("loss", "loss", ".4f"),
        ("reward_mean", "reward", ".3f"),
        ("token_accuracy", "token accuracy", ".3f"),
        ("learner_tokens_per_s", "tokens/s", ".0f"),
    ]
    values = [f"{label} {value:{form}}" for key, label, form in shown if (value := number(row, key)) is not None]
    return str(row.get("stage", "")), values


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
