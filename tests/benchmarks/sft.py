"""Supervised fine-tuning beside TRL's SFTTrainer: real tokens per second on GSM8K, measured in turns.

    python -m tests.benchmarks.sft [--data ../shared/data/gsm8k] [--num-steps 10] [--rounds 1]

Both train all weights of the same model, on the same examples and prompts, in batches of 8. Gradus runs as a user runs
it, through jobs/sft.py and Ray, and its time covers whole steps; TRL's is that of its train(). The first steps are left
out of both, and padding is not counted. TRL takes the best of its settings on a CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from actors.driver.learners import learner_environment
from pipeline.config import LearnerConfig
from pipeline.models.device import choose_dtype
from pipeline.runs.metrics_log import read_metrics
from tests.benchmarks.machine import describe_machine, matmul_tflops
from tests.conftest import ROOT

BATCH_SIZE = 8
SKIPPED = 8
"""Steps that are not timed: PyTorch compiles matmuls of new shapes, and processes allocate memory."""
PACKED: dict[str, object] = {"packing": True, "max_length": 1024}
BF16_WEIGHTS: dict[str, object] = {"model_init_kwargs": {"dtype": "bfloat16"}}
IN_BF16: dict[str, dict[str, object]] = {
    "TRL, bf16 weights, packing": BF16_WEIGHTS | PACKED | {"bf16": False},
    "TRL, bf16 weights and autocast, packing": BF16_WEIGHTS | PACKED,
    "TRL, fp32 weights, bf16 autocast, packing": PACKED,
    "TRL, bf16 weights": BF16_WEIGHTS | {"bf16": False},
    "TRL, fp32 weights, bf16 autocast": {},
}
"""TRL turns bf16 autocast on by default."""
IN_FP32: dict[str, dict[str, object]] = {
    "TRL, fp32, packing": PACKED | {"bf16": False},
    "TRL, fp32": {"bf16": False},
}
TRL = (IN_BF16 if choose_dtype("auto") == "bfloat16" else {}) | IN_FP32
"""A CPU without native bfloat16 matmul would take hours for the bfloat16 settings."""
WITH_OUR_MEMORY = f"{next(iter(TRL))}, in a process like Gradus' learners"
"""The first setting, with the variables of ``learner_environment``. They are not settings of TRL's, so this one is
shown but not compared."""
OURS = {"Gradus, packed": "true", "Gradus, padded": "false"}


def ours(data: Path, num_steps: int, packing: str) -> float:
    with tempfile.TemporaryDirectory() as root:
        settings = {
            "data.name": data,
            "output.root": root,
            "output.save_final_model": "false",
            "sft.max_steps": num_steps + SKIPPED,
            "sft.per_device_train_batch_size": BATCH_SIZE,
            "sft.gradient_accumulation_steps": 1,
            "sft.packing": packing,
            "eval.problems_per_level": 0,
            "eval.total_eval_times": 0,
            "eval.metric_for_best_model": "null",
            "checkpoint.every_minutes": 100,
        }
        command = [sys.executable, "jobs/sft.py", *(f"{key}={value}" for key, value in settings.items())]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (run,) = Path(root).glob("exp_*")
        rows = read_metrics(run)[SKIPPED:]
    return sum(row["learner_tokens_per_s"] * row["learner_s"] for row in rows) / sum(row["step_s"] for row in rows)


def trl(data: Path, num_steps: int, settings: dict[str, object], environment: dict[str, str] | None = None) -> float:
    """In a process of its own, which prints the rate."""
    command = [sys.executable, "-m", "tests.benchmarks.sft", "--data", str(data), "--num-steps", str(num_steps)]
    command += ["--trl", json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ | (environment or {}))
    return float(done.stdout.split()[-1])


def run_trl(data: Path, num_steps: int, settings: dict[str, object]) -> None:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from pipeline.config import DataConfig, ModelConfig
    from pipeline.data import load_problems
    from pipeline.models.hub import resolve_model
    from pipeline.models.tokenizer import load_tokenizer

    torch.set_num_threads(2)
    problems = load_problems(DataConfig(name=str(data), task_name="gsm8k", prompt_template="gsm8k"), "train")
    path = resolve_model(ModelConfig())
    tokenizer = load_tokenizer(path, ModelConfig())
    count = BATCH_SIZE * (num_steps + SKIPPED) * (4 if settings.get("packing") else 1)
    rows = [{"prompt": p.prompt_text, "completion": p.solution} for p in problems[:count]]

    class Clock(TrainerCallback):
        """Time and real tokens of the steps after the first ones."""

        start = 0.0
        tokens_at_start = tokens = 0

        def on_step_end(self, args, state, control, **_):
            if state.global_step == SKIPPED:
                self.start, self.tokens_at_start = time.perf_counter(), self.tokens

    clock = Clock()

    class Counting(SFTTrainer):
        def training_step(self, model, inputs, *rest, **named):
            mask = inputs.get("attention_mask")
            clock.tokens += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
            return super().training_step(model, inputs, *rest, **named)

    with tempfile.TemporaryDirectory() as output:
        arguments = SFTConfig(
            output_dir=output,
            max_steps=num_steps + SKIPPED,
            per_device_train_batch_size=2 if settings.get("packing") else BATCH_SIZE,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            gradient_checkpointing=False,
            disable_tqdm=True,
            **settings,
        )
        trainer = Counting(
            model=str(path),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    print((clock.tokens - clock.tokens_at_start) / (time.perf_counter() - clock.start))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/gsm8k")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trl", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not arguments.data.exists():
        return print(f"{arguments.data} does not exist: --data names a directory of GSM8K's train.jsonl and test.jsonl")
    if arguments.trl is not None:
        return run_trl(arguments.data, arguments.num_steps, arguments.trl)
    rates: dict[str, list[float]] = {name: [] for name in (*OURS, WITH_OUR_MEMORY, *TRL)}
    before = matmul_tflops()
    for _ in range(arguments.rounds):
        for name in rates:
            if name in OURS:
                rates[name].append(ours(arguments.data, arguments.num_steps, OURS[name]))
            elif name in TRL:
                rates[name].append(trl(arguments.data, arguments.num_steps, TRL[name]))
            else:
                settings, environment = next(iter(TRL.values())), learner_environment(LearnerConfig())
                rates[name].append(trl(arguments.data, arguments.num_steps, settings, environment))
            print(f"{name}: {rates[name][-1]:.0f} tokens/s", flush=True)
    best = max(median(rates[name]) for name in TRL)
    table = Table("", "tokens/s", "to TRL's best", title="SFT on GSM8K, the embedded model")
    for name, measured in rates.items():
        table.add_row(name, ", ".join(f"{rate:.0f}" for rate in measured), f"{median(measured) / best:.2f}")
    Console().print(table)
    print(f"{describe_machine()}; matmul: {before:.2f} TFLOP/s before, {matmul_tflops():.2f} after")
    print(f"ratio: {max(median(rates[name]) for name in OURS) / best:.2f}")


if __name__ == "__main__":
    main()
