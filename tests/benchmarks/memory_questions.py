"""An explicit memory on held-out facts, beside everything it should be compared with, over several seeds.

    python -m tests.benchmarks.memory_questions --facts trex_facts.jsonl --output /tmp/study --seeds 0 1 2

Per seed: questions from the facts, split by fact; the recipe configs/memory_smollm2.yaml; LoRA with as many trained
parameters and as much time on the same questions; the published form with as much time. All are asked the same held-out
questions. Each part is skipped if its files are there, so that a stopped study continues. Minutes are scaled to a
machine with a bfloat16 matmul rate of 1.6 TFLOP/s.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.files import write_json
from pipeline.reports.statistics import wilson_interval
from pipeline.runs.metrics_log import read_metrics
from tests.benchmarks.machine import matmul_tflops
from tests.benchmarks.questions import REFERENCE_TFLOPS
from tests.conftest import ROOT

RECIPE = "configs/memory_smollm2.yaml"
LORA_RANK = 26
"""7.94 M parameters; router and fusion together have 7.95 M."""
PROBE_STEPS = 4
"""Steps that tell how long a step takes."""
Found = dict[str, Any]


class Study:
    """The parts of one seed, under one directory.

    Args:
        texts: options of jobs/evaluate_memory.py that name the texts for perplexity.
    """

    def __init__(self, root: Path, facts: Path, seed: int, num_test: int, texts: list[str]) -> None:
        self._root, self._facts, self._seed, self._num_test, self._texts = root, facts, seed, num_test, texts
        root.mkdir(parents=True, exist_ok=True)

    @property
    def data(self) -> Path:
        return self._root / "data"

    def prepare(self) -> None:
        """Questions and knowledge of the seed."""
        if not self.data.exists():
            options = ["--num-test", str(self._num_test), "--seed", str(self._seed)]
            self._job("prepare_data", "omcq-from-facts", "--facts", self._facts, "--output", self.data, *options)

    def train(self, name: str, job: str, *overrides: str) -> Path:
        """A run, resumed if it was stopped; and the seconds of its training steps beside it."""
        root = self._root / name
        runs = sorted(root.glob("exp_*"))
        if not (runs and (runs[-1] / "report.html").exists()):
            own = [f"seed={self._seed}", f"output.root={root}", f"data.name={self.data}", *overrides]
            resumed = ["--resume", str(runs[-1])] if runs else own
            root.mkdir(exist_ok=True)
            write_json(root / "rate.json", {"tflops": matmul_tflops()})
            self._job(job, *resumed)
        (run,) = root.glob("exp_*")
        return run

    def train_memory(self, name: str, *overrides: str) -> Path:
        knowledge = f"memory.knowledge={self.data / 'knowledge.jsonl'}"
        return self.train(name, "train_memory", "--config", RECIPE, knowledge, *overrides)

    def evaluate(self, name: str, *source: object) -> Found:
        output = self._root / f"{name}_answers"
        if not output.exists():
            files = ["--questions", self.data / "test.jsonl", "--train-questions", self.data / "train.jsonl"]
            options = ["--output", output, "--batch-size", "64", *self._texts]
            self._job("evaluate_memory", *source, *files, *options)
        found: Found = json.loads((output / "eval_results.json").read_text())
        return found

    def _job(self, job: str, *arguments: object) -> None:
        command = [sys.executable, f"jobs/{job}.py", *map(str, arguments)]
        # Ray's workers run at nice 15, and would starve beside any other process of the machine.
        environment = os.environ | {"RAY_worker_niceness": "0"}
        with (self._root / "jobs.log").open("a") as log:
            subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env=environment, check=True)


def seconds(run: Path, stage: str | None = None) -> list[float]:
    """Seconds of each training step, of one stage or of all."""
    return [row["step_s"] for row in read_metrics(run) if stage in (None, row["stage"])]


def run_seed(study: Study, recipe: Path) -> dict[str, Found]:
    """Results by the name of what was asked.

    Args:
        recipe: file to write the settings of LoRA to.
    """
    study.prepare()
    run = study.train_memory("memory")
    limit = sum(seconds(run))
    found = {"memory": study.evaluate("memory", "--run", run) | {"training_s": limit}}
    recipe.write_text(json.dumps(lora_recipe()))
    probe = study.train("lora_probe", "sft", "--config", str(recipe), f"sft.max_steps={PROBE_STEPS}")
    steps = steps_within(limit, seconds(probe))
    lora = study.train("lora", "sft", "--config", str(recipe), f"sft.max_steps={steps}")
    found["lora"] = study.evaluate("lora", "--run", lora) | {"training_s": sum(seconds(lora))}
    probe = study.train_memory("published_probe", *published(PROBE_STEPS, PROBE_STEPS))
    router, fusion = (
        steps_within(share * limit, seconds(probe, stage)) for stage, share in (("router", 1 / 3), ("fusion", 2 / 3))
    )
    run = study.train_memory("published", *published(router, fusion))
    found["published"] = study.evaluate("published", "--run", run, "--conditions", "memory", "shuffled", "swapped")
    return found


def steps_within(limit_s: float, probed: list[float]) -> int:
    """Steps that take so long together, if each takes as long as the median of the probed ones."""
    return max(1, int(limit_s / median(probed)))


def published(router_steps: int, fusion_steps: int) -> list[str]:
    """Overrides for the published form: every position of every layer looks for an entry."""
    return [
        "memory.preset=explicitlm",
        "memory.num_candidates=16",
        "memory.gate_rank=128",
        f"router.max_steps={router_steps}",
        f"memory_sft.max_steps={fusion_steps}",
        "memory_sft.train=[memory_gate,gated_memory_fusion,memory_norm]",
    ]


def lora_recipe() -> Found:
    """LoRA on the conversations that the memory's fusion is trained on, and more of them."""
    return {
        "data": {"name": "data", "layout": "conversations"},
        "model": {"lora": {"r": LORA_RANK, "alpha": 2 * LORA_RANK}},
        "stages": [{"name": "lora", "kind": "sft"}],
        "sft": {
            "learning_rate": 1e-3,
            "lr_schedule": "cosine",
            "warmup_ratio": 0.1,
            "per_device_train_batch_size": 64,
        },
        "eval": {"problems_per_level": 0},
    }


def rows(results: list[dict[str, Found]]) -> Iterator[tuple[str, str, int, int]]:
    """Condition, comparison, number of right answers and number of questions, summed over the seeds."""
    for name in ("memory", "lora", "published"):
        for condition in results[0][name]["conditions"]:
            for measure in ("exact", "contains", "ranked", "keeps_exact"):
                found = [result[name]["conditions"][condition].get(measure) for result in results]
                if all(found):
                    right, total = (sum(item[key] for item in found) for key in ("num_right", "num"))
                    yield f"{name}: {condition}", measure, right, total


def table(results: list[dict[str, Found]]) -> Table:
    """All rows with their intervals, and the range over the seeds."""
    title = f"{len(results)} seeds; most frequent object {results[0]['memory']['most_frequent_object']:.1%}"
    shown = Table(title=title)
    for heading in ("", "answers compared", "right", "95 %", "questions"):
        shown.add_column(heading)
    for what, measure, right, total in rows(results):
        low, high = wilson_interval(right / total, total)
        shown.add_row(what, measure, f"{right / total:.1%}", f"[{low:.1%}, {high:.1%}]", f"{total:,}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-test", type=int, default=3200)
    parser.add_argument("--data-root", help="local copies of gsm8k and math: their perplexity is measured, too")
    arguments = parser.parse_args()
    texts = ["--texts", "gsm8k", "math", "--data-root", arguments.data_root] if arguments.data_root else []
    results = []
    for seed in arguments.seeds:
        root = arguments.output / f"seed_{seed}"
        study = Study(root, arguments.facts, seed, arguments.num_test, texts)
        results.append(run_seed(study, root / "lora.json"))
        write_json(arguments.output / "results.json", {"results": results, "tflops": matmul_tflops()})
        scaled = [found["memory"]["training_s"] / 60 * matmul_tflops() / REFERENCE_TFLOPS for found in results]
        Console(width=120).print(table(results), "scaled minutes of training:", scaled)


if __name__ == "__main__":
    main()
