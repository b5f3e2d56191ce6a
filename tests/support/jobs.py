"""Jobs as processes of their own: run to their end, or killed on the way."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.runs.metrics_log import read_metrics
from tests.conftest import ROOT


def job(*arguments: object, script: str) -> list[str]:
    return [sys.executable, script, *map(str, arguments)]


def only_run(root: Path) -> Path:
    (run,) = root.glob("exp_*")
    return run


def step_of(root: Path) -> int:
    """The newest step in the metrics of the runs under ``root``."""
    return max((row["step"] for run in root.glob("exp_*") for row in read_metrics(run)), default=0)


def start(*arguments: object, script: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command, quiet = job(*arguments, script=script), subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet, env=env)


def finish(*arguments: object, script: str, env: dict[str, str]) -> None:
    """Run a job to its end, which must be a good one."""
    done = subprocess.run(job(*arguments, script=script), cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-4000:]


def killed_at(step: int, root: Path, *arguments: object, script: str, env: dict[str, str]) -> None:
    """Start a job and kill its driver with SIGKILL once a run under ``root`` is at ``step``."""
    killed_when(lambda: step_of(root) >= step, *arguments, f"output.root={root}", script=script, env=env)


def killed_when(is_reached: Callable[[], bool], *arguments: object, script: str, env: dict[str, str]) -> None:
    """Start a job and kill its driver with SIGKILL at this moment."""
    with start(*arguments, script=script, env=env) as process:
        try:
            wait_until(is_reached, process)
        finally:
            process.kill()


def wait_until(is_reached: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float = 600.0) -> None:
    """Wait while the process runs."""
    deadline = time.monotonic() + timeout_s
    while not is_reached():
        assert process.poll() is None, f"the job ended early, with exit code {process.returncode}"
        assert time.monotonic() < deadline, "it was not reached in time"
        time.sleep(0.05)
