"""The gain of each stage of the problem writer, over several seeds, with 95 % intervals.

    python -m tests.benchmarks.questions --seeds 0 1 2 --output /tmp/study

Per seed: the recipe configs/questions_gen_smollm2.yaml, resumed if it was stopped. Every figure is a mean over the
seeds, and its interval a bootstrap over the held-out tasks, which all seeds and stages answer. So a change is paired by
task: it is significant if its interval excludes 0. The range over the seeds stands beside it. Minutes are scaled to a
machine with a bfloat16 matmul rate of 1.6 TFLOP/s.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.files import write_json
from pipeline.questions.summary import SHARES, TITLES, writing_summary
from pipeline.runs.records import read_evaluations, read_jsonl
from tests.benchmarks.machine import matmul_tflops
from tests.conftest import ROOT

RECIPE = ROOT / "configs" / "questions_gen_smollm2.yaml"
REFERENCE_TFLOPS = 1.6
NUM_DRAWS = 2000
Row = dict[str, Any]
Array = NDArray[np.float64]


def train(root: Path, seed: int, overrides: list[str]) -> Path:
    """Run the recipe under ``root``, or resume the run that is there."""
    root.mkdir(parents=True, exist_ok=True)
    runs = list(root.glob("exp_*"))
    if runs and (runs[0] / "report.html").exists():
        return runs[0]
    resumed = ["--resume", str(runs[0])] if runs else [f"seed={seed}", f"output.root={root}", *overrides]
    command = [sys.executable, "jobs/questions_gen.py", "--config", str(RECIPE), *resumed]
    rate, start = matmul_tflops(), time.time()
    with (root / "job.log").open("a") as log:
        # Ray's workers run at nice 15, and would starve beside any other process of the machine.
        environment = os.environ | {"RAY_worker_niceness": "0"}
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
    path, minutes = root / "time.json", (time.time() - start) / 60
    minutes += json.loads(path.read_text())["minutes"] if path.exists() else 0.0
    write_json(path, {"minutes": minutes, "tflops": rate, "scaled": minutes * rate / REFERENCE_TFLOPS})
    done.check_returncode()
    (run,) = root.glob("exp_*")
    return run


def task_values(rows: list[Row], name: str) -> Array:
    """The measure of each row alone, NaN where it has none: [num_tasks]."""
    single = [writing_summary([row])[name] for row in rows]
    return np.array([measure["mean"] if measure["num"] else np.nan for measure in single])


def diversities(rows: list[Row], name: str) -> Array:
    """Jackknife pseudo-values of a diversity, whose mean it is: [num_tasks]. NaN for a row that does not count, and for
    too few rows."""
    whole = writing_summary(rows)[name]
    without = [writing_summary(rows[:index] + rows[index + 1 :])[name] for index in range(len(rows))]
    left_out = np.array([measure["mean"] for measure in without])
    values = whole["num"] * whole["mean"] - (whole["num"] - 1) * left_out
    counts = [measure["num"] < whole["num"] and whole["num"] > 2 for measure in without]
    return np.where(counts, values, np.nan)


def draws(num_tasks: int) -> NDArray[np.intp]:
    """Tasks of every bootstrap draw; the first one is the sample itself: [NUM_DRAWS + 1, num_tasks]."""
    random = np.random.default_rng(0).integers(0, num_tasks, (NUM_DRAWS, num_tasks))
    return np.concatenate([np.arange(num_tasks)[None], random])


def means(values: Array, drawn: NDArray[np.intp]) -> Array:
    """Mean over the tasks of each draw, then over the seeds; NaN where a seed has no value: [NUM_DRAWS + 1].

    Args:
        values: [num_seeds, num_tasks], NaN where a row has none.
    """
    chosen = values[:, drawn]
    valid = ~np.isnan(chosen)
    with np.errstate(invalid="ignore"):
        by_seed = np.where(valid, chosen, 0).sum(axis=2) / valid.sum(axis=2)
    return np.asarray(by_seed.mean(axis=0))


def shown(name: str, replicates: Array, by_seed: Array, sign: str = "") -> Text:
    if np.isnan(replicates[0]):
        return Text("-")
    figure = sign + (".1%" if name in SHARES else ".2f")
    low, high = np.nanquantile(replicates[1:], (0.025, 0.975))
    parts = (format(value, figure) for value in (replicates[0], low, high, by_seed.min(), by_seed.max()))
    return Text("{} [{}, {}], seeds {} to {}".format(*parts))


def tables(runs: list[Path], level: str | None) -> tuple[Table, Table]:
    """Measures by evaluation, and their changes from one to the next."""
    names = [evaluation["name"] for evaluation in read_evaluations(runs[0])]
    table, changes = Table("measure", *names), Table("change", *(f"{a} -> {b}" for a, b in pairwise(names)))
    rows = {name: [read_jsonl(run / "samples" / f"eval_{name}.jsonl") for run in runs] for name in names}
    if level:
        rows = {name: [[row for row in own if row["level"] == level] for own in seeds] for name, seeds in rows.items()}
    drawn = draws(len(rows[names[0]][0]))
    for name, title in TITLES.items():
        of_rows = diversities if name.startswith("diversity") else task_values
        values = {each: np.stack([of_rows(own, name) for own in seeds]) for each, seeds in rows.items()}
        replicates = {each: means(own, drawn) for each, own in values.items()}
        by_seed = {each: np.array([means(own[None], drawn[:1])[0] for own in values[each]]) for each in names}
        table.add_row(title, *(shown(name, replicates[each], by_seed[each]) for each in names))
        moved = ((replicates[b] - replicates[a], by_seed[b] - by_seed[a]) for a, b in pairwise(names))
        changes.add_row(title, *(shown(name, *pair, "+") for pair in moved))
    return table, changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, required=True, help="directory of the runs; existing ones are kept")
    parser.add_argument("--level", help="tasks of this level alone")
    parser.add_argument("overrides", nargs="*", help="settings of the recipe")
    arguments = parser.parse_args()
    runs = [train(arguments.output / f"seed_{seed}", seed, arguments.overrides) for seed in arguments.seeds]
    console = Console(width=220)
    console.print(*tables(runs, arguments.level))
    for seed in arguments.seeds:
        if (path := arguments.output / f"seed_{seed}" / "time.json").exists():
            console.print(f"seed {seed}:", path.read_text().strip())


if __name__ == "__main__":
    main()
