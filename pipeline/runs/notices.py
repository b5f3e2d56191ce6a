"""Notices for the console from any process of a run: lines in its log that the driver shows."""

import logging
import re
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.runs.background import in_background
from pipeline.runs.tail import Tail

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())  # without any handler, logging would print what notify prints

_NOTICE = re.compile(rf"[\d-]+ [\d:,]+ WARNING {re.escape(__name__)}: (.+)")
"""A line of ``pipeline.runs.logs.FORMAT``."""


def notify(text: str) -> None:
    """Show one line on the console of the run, from any of its processes.

    The driver's output is the console. What other processes print ends in Ray's own logs, so the line also goes to the
    process's log in the run directory, where the driver finds it: see ``notices_shown``.
    """
    line = " ".join(text.split())
    print(line, flush=True)
    logger.warning(line)


def notices_shown(run_path: Path, poll_s: float = 1.0) -> AbstractContextManager[None]:
    """Show on this process's console what the other processes of a run notify, within the block.

    Args:
        run_path: of a run, or of a search, whose stages have logs of their own. Entered before the run's processes
            start: what is in the logs already is history.
    """
    return in_background(_follow, _Feed(run_path), poll_s)


def _follow(feed: "_Feed", poll_s: float, stop: threading.Event) -> None:
    is_stopping = False
    while not is_stopping:
        is_stopping = stop.wait(poll_s)
        for line in feed.poll():
            print(line, flush=True)


class _Feed:
    """New notices of all processes but the driver, which prints its own."""

    def __init__(self, run_path: Path) -> None:
        self._run_path = run_path
        self._tails = {path: Tail(path, skip_existing=True) for path in self._logs()}

    def poll(self) -> list[str]:
        """``learner_0: waiting 60 s for rewards (limit 1800 s)``; in a search with the stage's key before it."""
        for path in self._logs():
            self._tails.setdefault(path, Tail(path))
        return [f"{self._process(path)}: {text}" for path, tail in self._tails.items() for text in _notices(tail)]

    def _process(self, log: Path) -> str:
        return " ".join([*log.relative_to(self._run_path).parts[1:-2], log.stem])

    def _logs(self) -> list[Path]:
        patterns = ("logs/*.log", "stages/*/logs/*.log")
        logs = [path for pattern in patterns for path in sorted(self._run_path.glob(pattern))]
        return [path for path in logs if path.name != "driver.log"]


def _notices(tail: Tail) -> list[str]:
    """Logs may hold text that a model wrote, so control characters are left out."""
    matches = (_NOTICE.fullmatch(line.decode(errors="replace")) for line in tail.poll())
    return ["".join(filter(str.isprintable, match[1])) for match in matches if match]
