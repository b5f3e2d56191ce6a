"""Does GRPO teach what further SFT does not? Same start, same wall time, several seeds.

    python -m tests.benchmarks.grpo_against_sft --seeds 0 1 2 --output /tmp/study

Per seed: the demo recipe (SFT, then GRPO), and a fork of its SFT checkpoint that trains on with SFT, on all worked
solutions, for as long as GRPO's steps took. Both are evaluated greedily on held-out problems.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from pipeline.files import write_json
from pipeline.runs.metrics_log import read_metrics
from tests.conftest import ROOT

ARMS = ("sft", "grpo", "more_sft")
MEASURES = ("accuracy_tagged", "accuracy_last_number")


def train(root: Path, *arguments: str) -> Path:
    """Run the demo recipe under ``root``, or resume the run that is there."""
    root.mkdir(parents=True, exist_ok=True)
    if list(root.glob("exp_*/report.html")):  # it is finished
        (run,) = root.glob("exp_*")
        return run
    command = [sys.executable, "jobs/grpo_qwen.py", "--config", "configs/demo.yaml", f"output.root={root}", *arguments]
    with (root / "job.log").open("a") as log:
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log)
    (run,) = root.glob("exp_*")
    return run


def fork_after_sft(run: Path, root: Path) -> None:
    """A copy of the run as it was when SFT ended."""
    fork = root / run.name
    fork.mkdir(parents=True)
    shutil.copy(run / "experiment_config.json", fork)
    (checkpoint,) = (path for path in (run / "checkpoints").glob("*_done") if _stage(path) == "sft")
    shutil.copytree(checkpoint, fork / "checkpoints" / checkpoint.name)
    for directory in ("metrics", "eval", "samples", "logs"):
        (fork / directory).mkdir()
    shutil.copy(run / "metrics" / "metrics.jsonl", fork / "metrics")
    shutil.copy(run / "eval" / "sft.json", fork / "eval")


def _stage(checkpoint: Path) -> str:
    return json.loads((checkpoint / "progress.json").read_text())["stage"]


def run_seed(seed: int, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Evaluations of the three arms, by name, and the seconds that the two arms after SFT trained."""
    common = [f"seed={seed}", "checkpoint.keep_last=9", "checkpoint.every_steps=999", "checkpoint.every_minutes=999"]
    common += ["output.save_final_model=false", "eval.at_start=false", *overrides]
    root = output / f"seed_{seed}"
    run = train(root / "grpo", *common)
    rows = read_metrics(run)
    seconds = {kind: [row["step_s"] for row in rows if row["kind"] == kind] for kind in ("sft", "grpo")}
    steps = round(sum(seconds["grpo"]) / median(seconds["sft"]))  # the first steps warm up, and a machine has hiccups
    if not (root / "more_sft").exists():
        fork_after_sft(run, root / "more_sft")
    settings = f"{{max_steps: {steps}, num_epochs: 999.0, warmup_ratio: 0.0}}"
    stages = f"stages=[{{name: sft, kind: sft}}, {{name: more_sft, kind: sft, settings: {settings}}}]"
    fork = train(root / "more_sft", *common, "--resume", "latest", stages)
    forked = [row["step_s"] for row in read_metrics(fork) if row["stage"] == "more_sft"]
    evals = {name: json.loads((where / "eval" / f"{name}.json").read_text()) for name, where in _arms(run, fork)}
    return {
        "seed": seed,
        "evals": evals,
        "grpo_s": sum(seconds["grpo"]),
        "more_sft_s": sum(forked),
        "more_steps": steps,
    }


def _arms(run: Path, fork: Path) -> list[tuple[str, Path]]:
    return [("sft", run), ("grpo", run), ("more_sft", fork)]


def report(results: list[dict[str, Any]]) -> str:
    """Markdown tables: mean over seeds, and the gain over SFT with its spread between seeds."""
    lines = []
    for measure in MEASURES:
        lines += [
            f"\n{measure}, mean over {len(results)} seeds\n",
            "| level | SFT | + GRPO | + further SFT | GRPO gain |",
        ]
        lines.append("|---|---|---|---|---|")
        levels = [*results[0]["evals"]["sft"]["levels"], "mean of levels"]
        for level in levels:
            arms = {arm: [_accuracy(result["evals"][arm], level, measure) for result in results] for arm in ARMS}
            gains = [after - before for after, before in zip(arms["grpo"], arms["sft"], strict=True)]
            spread = f" ± {100 * stdev(gains):.1f}" if len(gains) > 1 else ""
            cells = " | ".join(f"{100 * fmean(arms[arm]):.1f} %" for arm in ARMS)
            lines.append(f"| {level} | {cells} | {100 * fmean(gains):+.1f}{spread} |")
    for result in results:
        lines.append(
            f"\nseed {result['seed']}: GRPO {result['grpo_s']:.0f} s of steps; "
            f"further SFT {result['more_sft_s']:.0f} s, {result['more_steps']} steps"
        )
    return "\n".join(lines)


def _accuracy(evaluation: dict[str, Any], level: str, measure: str) -> float:
    levels = evaluation["levels"]
    return fmean(each[measure] for each in levels.values()) if level == "mean of levels" else levels[level][measure]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, required=True, help="runs and results go here")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    results = []
    for seed in arguments.seeds:
        results.append(run_seed(seed, arguments.output, ["eval.problems_per_level=200", *arguments.overrides]))
        write_json(arguments.output / "results.json", results)
        print(report(results), flush=True)


if __name__ == "__main__":
    main()
