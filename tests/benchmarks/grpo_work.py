"""The work of the GRPO comparison: prompts and settings that Gradus and TRL share.

A step is 4 prompts x 8 completions x 128 tokens, on all weights of the embedded model, with ``beta`` 0 and one update.
"""

import json
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import DataConfig, EmbeddedSetsConfig
from pipeline.curriculum.mixture import Shuffled
from pipeline.data.stories import story_rows
from pipeline.models.embedded import build_embedded_model
from pipeline.runs.records import read_jsonl
from tests.conftest import ROOT
from tests.support.data import write_jsonl

T = TypeVar("T")

GSM8K = ROOT.parent / "shared/data/gsm8k"
BATCH_SIZE, NUM_GENERATIONS, MAX_COMPLETION_LENGTH = 4, 8, 128
LEARNING_RATE = 1e-6
SEED, STAGE = 0, "grpo"
UNWRITTEN = (16, "<empty_output>")
"""A token of the embedded model's vocabulary, and its text, that the model does not write."""


def alternating(group: Any, verdicts: Any) -> list[float]:
    """A reward that gives every completion an advantage: what has none costs a learner nothing."""
    return alternating_rewards(len(group.completions))


def alternating_rewards(num_completions: int) -> list[float]:
    return [float(number % 2) for number in range(num_completions)]


def data_config(data: Path) -> DataConfig:
    return DataConfig(name=str(data), task_name="gsm8k", prompt_template="gsm8k")


def write_problems(directory: Path, source: Path, num_steps: int) -> str:
    """Exactly the problems of so many steps, as GSM8K's files: every one is used once.

    Returns:
        Where they come from. Without GSM8K's files in ``source``: from the embedded stories.
    """
    count, file = num_steps * BATCH_SIZE, source / "train.jsonl"
    if file.exists():
        rows, name = list(islice(read_jsonl(file), count)), "GSM8K"
    else:
        stories = story_rows(EmbeddedSetsConfig(train_per_level=count), "train")[-count:]
        rows = [{"question": s["question"], "answer": f"{s['solution']}\n#### {s['answer']}"} for s in stories]
        name = f"embedded stories, as there is no {file}"
    for split in ("train", "test"):
        write_jsonl(directory / f"{split}.jsonl", *rows)
    return name


def endless_model(directory: Path) -> Path:
    """A copy of the embedded model that ends no completion: its end of sequence is a token that it does not write."""
    copy = directory / "model"
    shutil.copytree(build_embedded_model(), copy, ignore=shutil.ignore_patterns("chat_template.jinja", "SHA256SUMS"))
    token_id, text = UNWRITTEN
    for name, setting in (
        ("config.json", {"eos_token_id": token_id}),
        ("generation_config.json", {"eos_token_id": token_id}),
        ("tokenizer_config.json", {"eos_token": text}),
    ):
        settings = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(settings | setting))
    return copy


def in_training_order(problems: Sequence[T]) -> list[T]:
    """The problems as the steps of our stage take them, so that TRL's steps have the same ones."""
    order = Shuffled(len(problems), (SEED, STAGE))
    return [problems[order.row(position)] for position in range(len(problems))]


def recipe(model: Path, data: Path, output: Path, num_steps: int, staleness: int = 0) -> dict[str, Any]:
    """Our job. Engines, graders and learner keep their defaults; but where engines work ahead, both have a thread each
    instead of two for the same two cores."""
    threads = {"num_threads": 1} if staleness else {}
    return {
        "seed": SEED,
        "model": {"name": str(model), "device": "cpu"},
        "data": data_config(data).model_dump(include={"name", "task_name", "prompt_template"}),
        "stages": [{"name": STAGE, "kind": "grpo"}],
        "grpo": {
            "batch_size": BATCH_SIZE,
            "num_generations": NUM_GENERATIONS,
            "num_steps": num_steps,
            "learning_rate": LEARNING_RATE,
            "beta": 0.0,
            "mu": 1,
        },
        "rollout": {"max_completion_length": MAX_COMPLETION_LENGTH, "max_staleness": staleness, **threads},
        "learner": threads,
        "reward": {"functions": [{"name": f"{__name__}:{alternating.__name__}"}]},
        "eval": {"problems_per_level": 0},
        "checkpoint": {"every_minutes": 1000},
        "output": {"root": str(output), "save_final_model": False},
    }
