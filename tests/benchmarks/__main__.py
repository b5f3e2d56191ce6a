"""``make bench``: the time of a GRPO step by phase, with the embedded model, and then fine-tuning beside TRL.

Times of different machines compare only as a ratio to the matmul rate, which is measured too.

    python -m tests.benchmarks [grpo] [sft]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import Row
from tests.conftest import ROOT

PHASES = ("rollout", "reward", "learner", "weight_sync", "other")


def matmul_tflops(seconds: float = 2.0) -> float:
    """Rate of 2048 x 2048 matmuls on all cores, in this machine's default dtype for models."""
    import torch

    from pipeline.models.device import torch_dtype

    a, b = torch.randn(2, 2048, 2048, dtype=torch_dtype("auto"))
    a @ b
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        a @ b
        count += 1
    return count * 2 * 2048**3 / (time.perf_counter() - start) / 1e12


def grpo_rows(root: str, *overrides: str) -> list[Row]:
    """Metrics of the GRPO steps of a short demo run, without the first, which warms up."""
    command = [sys.executable, "jobs/demo.py", "--config", "configs/demo.yaml", f"output.root={root}", *overrides]
    subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (run,) = Path(root).glob("exp_*")
    return [row for row in read_metrics(run) if row["kind"] == "grpo"][1:]


def grpo() -> None:
    before = matmul_tflops()
    with tempfile.TemporaryDirectory() as root:
        rows = grpo_rows(root, "sft.max_steps=30", "grpo.num_steps=6", "eval.problems_per_level=0")
    after = matmul_tflops()
    total = fmean(row["step_s"] for row in rows)
    table = Table("phase", "s per step", "share", title="GRPO step, configs/demo.yaml")
    for phase in PHASES:
        seconds = fmean(row[f"{phase}_s"] for row in rows)
        table.add_row(phase, f"{seconds:.2f}", f"{seconds / total:.1%}")
    table.add_row("all", f"{total:.2f}", "")
    Console().print(table)
    for key in ("rollout_tokens_per_s", "learner_tokens_per_s"):
        print(f"{key}: {fmean(row[key] for row in rows):.0f}")
    print(f"matmul: {before:.2f} TFLOP/s before, {after:.2f} after")


def main() -> None:
    from tests.benchmarks import sft

    benchmarks = {"grpo": grpo, "sft": lambda: sft.main([])}
    for name in sys.argv[1:] or benchmarks:
        benchmarks[name]()


if __name__ == "__main__":
    main()
