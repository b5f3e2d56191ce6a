"""Seconds from the command to the first GRPO step of the embedded model, by part, and from one stage's last step to the
next stage's first: ``python -m tests.benchmarks.start``. They say most on a machine that is idle: on one of two cores
every other process adds its share."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import yaml

from pipeline.runs.metrics_log import read_metrics
from tests.benchmarks.machine import describe_machine
from tests.conftest import CONFIGS, ROOT

SHORT = {
    "sft": {"max_steps": 2, "per_device_train_batch_size": 4},
    "grpo": {"num_steps": 1, "batch_size": 4, "num_generations": 4},
    "eval": {"problems_per_level": 0},
    "output": {"save_final_model": False},
}
LIMIT_S = 1800.0
LOGGED = {
    "an engine has started": ("rollout_0.log", "engine for "),
    "the learner has the model": ("learner_0.log", "policy "),
}
"""Parts of the start: the log that says when each was done, and the words."""


def seconds_to_start(stages: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """``start_s`` of every stage of the demo, shortened to these stages, and seconds until each part was done."""
    settings = yaml.safe_load((CONFIGS / "demo.yaml").read_text())
    settings["stages"] = [{"name": name, "kind": name} for name in stages]
    for section, values in SHORT.items():
        settings[section] |= values
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "start.yaml"
        settings["output"]["root"] = folder
        recipe.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "jobs/grpo_qwen.py", "--config", str(recipe)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
        began = time.time()
        done = subprocess.run(command, cwd=ROOT, timeout=LIMIT_S, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"the job failed:\n{done.stderr[-3000:]}")
        (run,) = Path(folder).glob("exp_*")
        starts = {row["stage"]: row["start_s"] for row in read_metrics(run) if "start_s" in row}
        return starts, {part: _logged_at(run / "logs" / log, words) - began for part, (log, words) in LOGGED.items()}


def _logged_at(log: Path, words: str) -> float:
    """Unix time of the first line whose message begins with these words."""
    line = re.search(rf"^(\S+ \S+),(\d+) INFO \S+: {words}", log.read_text(), flags=re.MULTILINE)
    if line is None:
        raise SystemExit(f"{log.name} must have a line on {words!r}")
    return datetime.fromisoformat(line[1]).timestamp() + int(line[2]) / 1000


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    print(describe_machine())
    starts, parts = seconds_to_start(["grpo"])
    for part, seconds in sorted(parts.items(), key=lambda part: part[1]):
        print(f"from the command until {part}: {seconds:.1f} s")
    print(f"from the command to the first GRPO step: {starts['grpo']:.1f} s")
    between = seconds_to_start(["sft", "grpo"])[0]["grpo"]
    print(f"from the last SFT step to the first GRPO step: {between:.1f} s")


if __name__ == "__main__":
    main()
