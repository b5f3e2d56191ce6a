"""Tells the person at the console when a process of the run gets too little CPU time.

Ray starts workers at nice 15. On a machine that others use too they can come to a near standstill, which looks like a
hang.
"""

import os
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline.runs.notices import notify

PERIOD_S = 60.0
QUIET_S = 600.0
"""Pause after a notice."""
STARVED_BELOW_FRAC = 1 / 3
"""Two busy processes of equal priority get half each."""
MIN_ASKED_FRAC = 0.1
"""A process that asks for less than this share of one CPU is idle, not starved."""


class CpuTime(NamedTuple):
    """CPU time of one thread since it started."""

    ran_ns: int
    waited_ns: int
    """Ready to run, on the queue of a CPU."""


@cache
def watch_starvation() -> None:
    """Watch this process from a thread of its own until it ends. A second call does nothing."""
    threading.Thread(target=_watch, name="starvation", daemon=True).start()


def _watch() -> None:
    while True:
        before = thread_times()
        time.sleep(PERIOD_S)
        text = describe_starvation(before, thread_times(), PERIOD_S, os.getpriority(os.PRIO_PROCESS, 0))
        if text:
            notify(text)
            time.sleep(QUIET_S)


def thread_times(tasks: Path = Path("/proc/self/task")) -> dict[str, CpuTime]:
    """CPU time by thread. Only Linux keeps such an account; elsewhere {}."""
    times = {}
    for path in tasks.glob("*/schedstat"):
        try:
            ran, waited, _ = path.read_text().split()
        except OSError:  # the thread has ended
            continue
        times[path.parent.name] = CpuTime(int(ran), int(waited))
    return times


def describe_starvation(
    before: Mapping[str, CpuTime], after: Mapping[str, CpuTime], period_s: float, niceness: int
) -> str | None:
    """One line if the threads waited for a CPU much longer than they ran, otherwise None.

    Threads that ended in between are left out.
    """
    start = CpuTime(0, 0)
    ran_ns = sum(end.ran_ns - before.get(thread, start).ran_ns for thread, end in after.items())
    waited_ns = sum(end.waited_ns - before.get(thread, start).waited_ns for thread, end in after.items())
    asked_ns = ran_ns + waited_ns
    if asked_ns < MIN_ASKED_FRAC * period_s * 1e9 or ran_ns >= STARVED_BELOW_FRAC * asked_ns:
        return None
    text = (
        f"this process got {ran_ns / asked_ns:.0%} of the CPU time it asked for in the last {period_s:.0f} s: others "
        "use the CPUs, or it has more threads than CPUs"
    )
    if niceness > 0:
        text += f". It runs at nice {niceness}; for 0, start Ray with RAY_worker_niceness=0 in its environment"
    return text
