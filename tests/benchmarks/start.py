"""Seconds from the command to the first GRPO step of the embedded model, and from one stage's last step to the next
stage's first: ``python -m tests.benchmarks.start``. On a CPU of few cores it says most on a machine that is idle."""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from pipeline.runs.metrics_log import read_metrics
from tests.conftest import CONFIGS, ROOT

SHORT = {
    "sft": {"max_steps": 2, "per_device_train_batch_size": 4},
    "grpo": {"num_steps": 1, "batch_size": 4, "num_generations": 4},
    "eval": {"problems_per_level": 0},
}
LIMIT_S = 600.0


def seconds_to_start(stages: list[str]) -> dict[str, float]:
    """``start_s`` of every stage of the demo, shortened to these stages."""
    settings = yaml.safe_load((CONFIGS / "demo.yaml").read_text())
    settings["stages"] = [{"name": name, "kind": name} for name in stages]
    for section, values in SHORT.items():
        settings[section] |= values
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "start.yaml"
        settings["output"]["root"] = folder
        recipe.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "jobs/grpo_qwen.py", "--config", str(recipe)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
        (run,) = Path(folder).glob("exp_*")
        return {row["stage"]: row["start_s"] for row in read_metrics(run) if "start_s" in row}


def main() -> None:
    print(f"from the command to the first GRPO step: {seconds_to_start(['grpo'])['grpo']:.1f} s")
    between = seconds_to_start(["sft", "grpo"])["grpo"]
    print(f"from the last SFT step to the first GRPO step: {between:.1f} s")


if __name__ == "__main__":
    main()
