"""TRL's side of the GRPO comparison, in a process of its own: tests/benchmarks/grpo.py starts it.

    python -m tests.benchmarks.trl_grpo MODEL DATA NUM_STEPS SETTINGS

Prints a JSON object: the seconds of every step, and its completion and prompt tokens.
"""

import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.config import LearnerConfig, ModelConfig
from pipeline.data import load_problems
from pipeline.models.tokenizer import load_tokenizer
from tests.benchmarks.grpo_work import (
    BATCH_SIZE,
    LEARNING_RATE,
    MAX_COMPLETION_LENGTH,
    NUM_GENERATIONS,
    SEED,
    alternating_rewards,
    data_config,
    in_training_order,
)


def train(model: Path, data: Path, num_steps: int, settings: dict[str, Any]) -> dict[str, list[float]]:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(LearnerConfig().num_threads)
    tokenizer = load_tokenizer(model, ModelConfig(name=str(model)), chat=False)
    problems = in_training_order(load_problems(data_config(data), "train"))
    ends = [time.perf_counter()]
    tokens: list[float] = []
    prompt_tokens: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokens.append(sum(map(len, completion_ids)))
        prompt_tokens.append(sum(map(len, tokenizer(prompts)["input_ids"])))
        return alternating_rewards(len(completion_ids))

    with tempfile.TemporaryDirectory() as output:
        trainer = GRPOTrainer(
            model=str(model),
            reward_funcs=reward,
            args=GRPOConfig(output_dir=output, max_steps=num_steps, **(grpo_settings() | settings)),
            train_dataset=Dataset.from_list([{"prompt": problem.prompt_text} for problem in problems]),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    step_s = [end - start for start, end in pairwise(ends)]
    return {"step_s": step_s, "tokens": tokens, "prompt_tokens": prompt_tokens}


def grpo_settings() -> dict[str, Any]:
    """The same algorithm and batch as ours, one optimizer step a batch, and nothing that costs time beside it.

    All completions of a batch are generated at once. They are learned from 8 at a time: all 32 at once were as fast
    and took 13.8 GiB instead of 5.9.
    """
    return {
        "per_device_train_batch_size": NUM_GENERATIONS,
        "gradient_accumulation_steps": BATCH_SIZE,
        "num_generations": NUM_GENERATIONS,
        "max_completion_length": MAX_COMPLETION_LENGTH,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "loss_type": "grpo",
        "beta": 0.0,
        "num_iterations": 1,
        "shuffle_dataset": False,
        "seed": SEED,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))))
