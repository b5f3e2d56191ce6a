"""Jobs as processes of their own: run to their end, or killed on the way."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from pipeline.runs.metrics_log import read_metrics
from tests.conftest import ROOT


def job(*arguments: object, script: str = "jobs/grpo_qwen.py") -> list[str]:
    return [sys.executable, script, *map(str, arguments)]


def run_job(*arguments: object, script: str = "jobs/grpo_qwen.py") -> str:
    """Runs a job to its end and returns what it printed."""
    done = subprocess.run(
        job(*arguments, script=script), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def save_recipe(directory: Path, settings: dict[str, Any]) -> Path:
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def only_run(root: Path) -> Path:
    (run,) = root.glob("exp_*")
    return run


def killed_at(step: int, root: Path, *arguments: object, script: str = "jobs/grpo_qwen.py") -> None:
    """Starts a job and kills its driver with SIGKILL once a run under ``root`` is at ``step``."""
    with start(*arguments, f"output.root={root}", script=script) as process:
        try:
            wait_for_step(root, step, process)
        finally:
            process.kill()


def start(*arguments: object, script: str = "jobs/grpo_qwen.py") -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(job(*arguments, script=script), cwd=ROOT, stdout=quiet, stderr=quiet)


def wait_for_step(root: Path, step: int, process: subprocess.Popen, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        if any(row["step"] >= step for run in root.glob("exp_*") for row in read_metrics(run)):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached: exit code {process.poll()}")
