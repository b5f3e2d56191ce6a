"""What each stage of the problem writer adds, over several seeds, with 95 % intervals.

    python -m tests.benchmarks.questions --seeds 0 1 2 --output /tmp/study

Per seed: the recipe configs/questions_gen_smollm2.yaml, resumed if it was stopped. The tables are over what all seeds
wrote for the same held-out tasks. A change is significant if its interval excludes 0.
"""

import argparse
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.files import write_json
from pipeline.questions.summary import TITLES, Measure, shown, writing_summary
from pipeline.runs.records import read_evaluations, read_jsonl
from tests.benchmarks.__main__ import matmul_tflops
from tests.conftest import ROOT


def train(root: Path, seed: int) -> Path:
    """Run the recipe under ``root``, or resume the run that is there."""
    root.mkdir(parents=True, exist_ok=True)
    runs = list(root.glob("exp_*"))
    if runs and (runs[0] / "report.html").exists():
        return runs[0]
    resumed = ["--resume", str(runs[0])] if runs else [f"seed={seed}", f"output.root={root}"]
    with (root / "job.log").open("a") as log:
        log.write(f"bf16 matmul: {matmul_tflops():.2f} TFLOP/s\n")
        log.flush()
        command = [sys.executable, "jobs/questions_gen.py", *resumed]
        # Ray's workers run at nice 15, and would starve beside any other process of the machine.
        environment = os.environ | {"RAY_worker_niceness": "0"}
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log, env=environment)
    (run,) = root.glob("exp_*")
    return run


def stage_rows(runs: list[Path]) -> dict[str, list[dict[str, Any]]]:
    """Evaluation -> all that was written in it, over the runs."""
    names = [evaluation["name"] for evaluation in read_evaluations(runs[0])]
    return {name: [row for run in runs for row in read_jsonl(run / "samples" / f"eval_{name}.jsonl")] for name in names}


def change(before: Measure, after: Measure) -> Measure:
    """The difference of two means, with the interval of independent ones."""
    half = math.hypot(before["high"] - before["low"], after["high"] - after["low"]) / 2
    mean = after["mean"] - before["mean"]
    return {"mean": mean, "low": mean - half, "high": mean + half, "num": after["num"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, required=True, help="directory of the runs; existing ones are kept")
    parser.add_argument("--level", help="tasks of this level alone")
    arguments = parser.parse_args()
    rows = stage_rows([train(arguments.output / f"seed_{seed}", seed) for seed in arguments.seeds])
    if arguments.level:
        rows = {name: [row for row in own if row["level"] == arguments.level] for name, own in rows.items()}
    measured = {name: writing_summary(own) for name, own in rows.items()}
    write_json(arguments.output / "questions.json", measured)
    console = Console(width=180)
    table = Table("measure", *measured, title=f"{len(arguments.seeds)} seeds: {', '.join(map(str, arguments.seeds))}")
    changes = Table("change", *(f"{before} -> {after}" for before, after in pairwise(measured)))
    for name, title in TITLES.items():
        own = [measures[name] for measures in measured.values()]
        table.add_row(title, *(Text(shown(name, measure)) for measure in own))
        changes.add_row(title, *(Text(shown(name, change(*pair), "+")) for pair in pairwise(own)))
    console.print(table, changes)


if __name__ == "__main__":
    main()
