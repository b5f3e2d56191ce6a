"""Seconds of a GRPO step by phase: configs/demo.yaml on the embedded model, without the first step, which warms up.

python -m tests.benchmarks.phases
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from pipeline.runs.clock import PHASES
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import Row
from tests.benchmarks.machine import describe_machine, matmul_tflops
from tests.conftest import ROOT


def grpo_rows(root: str, *overrides: str) -> list[Row]:
    """Metrics of the GRPO steps of a short demo run, without the first, which warms up."""
    command = [sys.executable, "jobs/demo.py", "--config", "configs/demo.yaml", f"output.root={root}", *overrides]
    subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (run,) = Path(root).glob("exp_*")
    return [row for row in read_metrics(run) if row["kind"] == "grpo"][1:]


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    before = matmul_tflops()
    with tempfile.TemporaryDirectory() as root:
        rows = grpo_rows(root, "sft.max_steps=30", "grpo.num_steps=6", "eval.problems_per_level=0")
    after = matmul_tflops()
    total = fmean(row["step_s"] for row in rows)
    table = Table("phase", "s per step", "share", title="GRPO step, configs/demo.yaml")
    for phase in (*PHASES["grpo"], "other"):
        seconds = fmean(row[f"{phase}_s"] for row in rows)
        table.add_row(phase, f"{seconds:.2f}", f"{seconds / total:.1%}")
    table.add_row("all", f"{total:.2f}", "")
    Console().print(table)
    for key in ("rollout_tokens_per_s", "learner_tokens_per_s"):
        print(f"{key}: {fmean(row[key] for row in rows):.0f}")
    print(f"{describe_machine()}; matmul: {before:.2f} TFLOP/s before, {after:.2f} after")


if __name__ == "__main__":
    main()
