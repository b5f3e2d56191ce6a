"""GRPO beside TRL's GRPOTrainer: seconds per step and peak memory on the same prompts, measured in turns.

    python -m tests.benchmarks.grpo [--rounds 1] [--num-steps 3] [--data DIR] [--staleness 0] [--trl "bf16 weights"]

tests/benchmarks/grpo_work.py describes the work. Gradus runs as a user runs it, through jobs/grpo_qwen.py, Ray and
vLLM; TRL in a process of its own, with the fastest of its settings on this machine, which a first round finds. Both
train on the same problems in the same steps. The first steps are left out of both. Memory is the peak PSS of the
process and all its descendants: a page that several of them share counts once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import yaml
from rich.console import Console
from rich.table import Table

from pipeline.models.device import choose_dtype
from pipeline.runs.metrics_log import read_metrics
from tests.benchmarks.grpo_work import GSM8K, endless_model, recipe, write_problems
from tests.benchmarks.machine import describe_machine, matmul_tflops
from tests.conftest import ROOT
from tests.support.tables import PeakMemory

SKIPPED = 2
"""Steps that are not timed: processes allocate memory, and PyTorch compiles matmuls of new shapes."""
RUN_LIMIT_S = 7200
BF16_WEIGHTS = {"model_init_kwargs": {"dtype": "bfloat16"}}
FP32_WEIGHTS = {"model_init_kwargs": {"dtype": "float32"}}
IN_BF16: dict[str, dict[str, object]] = {
    "bf16 weights": BF16_WEIGHTS | {"bf16": False},
    "bf16 weights and autocast": BF16_WEIGHTS | {"bf16": True},
    "fp32 weights, bf16 autocast": FP32_WEIGHTS | {"bf16": True},
}
IN_FP32: dict[str, dict[str, object]] = {"fp32": FP32_WEIGHTS | {"bf16": False}}
TRL = (IN_BF16 if choose_dtype("auto") == "bfloat16" else {}) | IN_FP32
"""A CPU without native bfloat16 matmul would take hours for the bfloat16 settings."""


@dataclass(frozen=True)
class Measured:
    """The timed steps of one run."""

    step_s: list[float]
    tokens: list[float]
    """Completion tokens of every step."""
    prompt_tokens: list[float]
    """Of the prompts of all its completions. Empty where they are not known."""
    peak_mib: float

    def __str__(self) -> str:
        steps = ", ".join(f"{seconds:.1f}" for seconds in self.step_s)
        return f"{steps} s; {fmean(self.tokens):.0f} completion tokens a step; {self.peak_mib / 1024:.2f} GiB"


@dataclass(frozen=True)
class Work:
    """The training of both sides, and the number of timed steps."""

    model: Path
    data: Path
    num_steps: int


def ours(work: Work, staleness: int = 0) -> Measured:
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "grpo.yaml"
        settings = recipe(work.model, work.data, Path(directory), work.num_steps + SKIPPED, staleness)
        config.write_text(yaml.safe_dump(settings))
        _, peak_mib = _run("jobs/grpo_qwen.py", "--config", str(config))
        (run,) = Path(directory).glob("exp_*")
        rows = read_metrics(run)[SKIPPED:]
    tokens = [row["sampled_tokens"] for row in rows]
    return Measured([row["step_s"] for row in rows], tokens, [], peak_mib)


def trl(work: Work, settings: dict[str, object]) -> Measured:
    arguments = (str(work.model), str(work.data), str(work.num_steps + SKIPPED), json.dumps(settings))
    output, peak_mib = _run("-m", "tests.benchmarks.trl_grpo", *arguments)
    measured = {name: values[SKIPPED:] for name, values in json.loads(output.splitlines()[-1]).items()}
    return Measured(peak_mib=peak_mib, **measured)


def _run(*arguments: str) -> tuple[str, float]:
    """Run Python, and return what it printed and the peak memory of its process tree in MiB."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=out, stderr=log, env=environment)
        try:
            with PeakMemory(interval_s=1.0, pid=process.pid) as memory:
                process.wait(RUN_LIMIT_S)
        finally:
            process.terminate()  # if this one is stopped, or the limit is reached
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{arguments[0]} failed:\n{log.read()[-3000:]}")
        out.seek(0)
        return out.read(), memory.peak_mib


def fastest(work: Work) -> str:
    """The name of TRL's fastest setting here. Each makes one step after those that are not timed."""
    seconds = {}
    for name, settings in TRL.items():
        measured = trl(replace(work, num_steps=1), settings)
        seconds[name] = measured.step_s[0]
        print(f"TRL, {name}: {measured}", flush=True)
    return min(seconds, key=seconds.__getitem__)


def table(measured: dict[str, list[Measured]]) -> Table:
    shown = Table("", "s per step, median", "completion tokens a step", "s per 1,000", "peak GiB")
    for name, runs in measured.items():
        seconds, tokens = _steps(runs), fmean(count for run in runs for count in run.tokens)
        cells = (f"{median(seconds):.1f}", f"{tokens:.0f}", f"{1000 * fmean(seconds) / tokens:.1f}")
        shown.add_row(name, *cells, f"{_peak(runs) / 1024:.2f}")
    return shown


def ratios(ours: list[Measured], trl: list[Measured]) -> list[str]:
    """Medians; Gradus' memory to TRL's; TRL's seconds to those of Gradus."""
    our_s, trl_s = median(_steps(ours)), median(_steps(trl))
    return [
        f"median s per step: Gradus {our_s:.1f}, TRL {trl_s:.1f}",
        f"memory ratio: {_peak(ours) / _peak(trl):.2f}",
        f"ratio: {trl_s / our_s:.2f}",
    ]


def _steps(runs: list[Measured]) -> list[float]:
    return [seconds for run in runs for seconds in run.step_s]


def _peak(runs: list[Measured]) -> float:
    return max(run.peak_mib for run in runs)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--num-steps", type=int, default=3, help="timed steps of each side and round")
    parser.add_argument("--data", type=Path, default=GSM8K, help="directory of GSM8K's train.jsonl")
    parser.add_argument("--staleness", type=int, default=0, help="rollout.max_staleness of Gradus")
    parser.add_argument("--trl", choices=TRL, help="TRL's settings, if the fastest on this machine are known")
    arguments = parser.parse_args(argv)
    before = matmul_tflops()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        source = write_problems(data, arguments.data, arguments.num_steps + SKIPPED)
        work = Work(endless_model(Path(directory)), data, arguments.num_steps)
        print(f"{describe_machine()}; prompts: {source}; not timed: the first {SKIPPED} steps", flush=True)
        best = arguments.trl or fastest(work)
        measured: dict[str, list[Measured]] = {"Gradus": [], f"TRL, {best}": []}
        for _ in range(arguments.rounds):
            measured["Gradus"].append(ours(work, arguments.staleness))
            measured[f"TRL, {best}"].append(trl(work, TRL[best]))
            for name, runs in measured.items():
                print(f"{name}: {runs[-1]}", flush=True)
    Console().print(table(measured))
    print(f"matmul: {before:.2f} TFLOP/s before, {matmul_tflops():.2f} after")
    print("\n".join(ratios(*measured.values())))


if __name__ == "__main__":
    main()
