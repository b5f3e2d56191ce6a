"""Recipes of whole jobs on a tiny model in float32: a chain, a search and an evaluation.

They ask for the same engines, which many of them can therefore share.
"""

from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config, validate_config
from pipeline.questions.student import StudentSettings, prepare_student
from tests.support.data import write_jsonl

MAX_PROMPT_LENGTH, MAX_COMPLETION_LENGTH = 80, 16
MAX_MODEL_LEN = MAX_PROMPT_LENGTH + MAX_COMPLETION_LENGTH
REWARDS = [{"name": "tests.support.models:letter_reward"}, {"name": "format", "weight": 0.5}]
GRADER = {"stages": [{"name": "rl", "kind": "grpo"}], "reward": {"functions": REWARDS, "num_children": 1}}
"""Configuration of a reward worker."""
SIGNS = {"1": "+", "2": "-", "3": "*"}
"""By level."""


def save_recipe(directory: Path, settings: dict[str, Any]) -> Path:
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def tiny_settings(model: Path, data: Path, **sections: Any) -> dict[str, Any]:
    """A curriculum of SFT stages, one per level. It learns nothing that an evaluation would see."""
    actor = {"num_cpus": 0.1, "memory_gib": 0.3}
    return {
        "model": {"name": str(model), "dtype": "float32", "device": "cpu"},
        "data": {"name": str(data), "task_name": "gsm8k", "system_prompt": "", "fields": {"level": "level"}},
        "curriculum": {},
        "stages": [{"name": "level", "kind": "sft", "each_level": True}],
        "sft": {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-3, "lr_schedule": "linear"},
        "grpo": {"batch_size": 4, "num_generations": 4, "num_steps": 4, "mu": 2, "beta": 0.02}
        | {"learning_rate": 3e-3, "epsilon": 0.1},
        "rollout": {"max_prompt_length": MAX_PROMPT_LENGTH, "max_completion_length": MAX_COMPLETION_LENGTH}
        | {"prompts_per_chunk": 2, "num_threads": 1, "kv_cache_gib": 0.3, **actor},
        "reward": {"functions": REWARDS, **actor},
        "learner": {"tokens_per_micro_batch": 256, "num_threads": 1, **actor},
        "eval": {"problems_per_level": 4, "max_completion_length": MAX_COMPLETION_LENGTH},
        "checkpoint": {"every_steps": 1},
        "tracking": {"backends": []},
        **sections,
    }


def tiny_config(model: Path, data: Path) -> Config:
    """A job of one GRPO stage."""
    return validate_config(tiny_settings(model, data, curriculum=None, stages=[{"name": "rl", "kind": "grpo"}]))


def chain_recipe(model: Path, directory: Path) -> Path:
    """Two levels of SFT, each stopped after two of its four steps and repeated once, then GRPO.

    Adapters start from PiSSA and are refactored on the way.
    """
    _write_levels(directory, 2)
    settings = tiny_settings(
        model,
        directory,
        stages=[{"name": "level", "kind": "sft", "each_level": True}, {"name": "rl", "kind": "grpo"}],
        curriculum={
            "replay_ratio": 0.25,
            "promotion": {"threshold": 0.9, "patience": 1, "max_repeats": 1, "every_steps": 2},
        },
        trainer={"name": "SpectralRefactor", "refactor_every": 2, "warmup_steps": 1, "cooldown_steps": 1},
        output={"samples_every_steps": 2},
    )
    settings["model"]["lora"] = {"r": 4, "alpha": 8, "init": "pissa", "use_rslora": True}
    settings["eval"]["total_eval_times"] = 2
    return save_recipe(directory, settings)


def sft_recipe(model: Path, directory: Path, num_steps: int) -> Path:
    """One stage of SFT, without engines."""
    _write_levels(directory, 1)
    settings = tiny_settings(model, directory, curriculum=None, stages=[{"name": "warmup", "kind": "sft"}])
    settings["sft"] |= {"max_steps": num_steps, "num_train_epochs": num_steps}
    settings["eval"]["problems_per_level"] = 0
    settings["checkpoint"]["every_steps"] = num_steps
    return save_recipe(directory, settings)


def grpo_recipe(model: Path, directory: Path, **sections: dict[str, Any]) -> Path:
    """One stage of GRPO.

    Args:
        sections: settings to change.
    """
    _write_levels(directory, 1)
    settings = tiny_settings(model, directory, curriculum=None, stages=[{"name": "rl", "kind": "grpo"}])
    for name, changed in sections.items():
        settings[name] = settings.get(name, {}) | changed
    return save_recipe(directory, settings)


def search_recipe(model: Path, directory: Path) -> Path:
    """Three chains, of the levels 1, 2, 3 and 1, 2 with replay, and of 1, 3 without: four different stages.

    All chains share the first stage, two of them the second.
    """
    _write_levels(directory, 3)
    settings = tiny_settings(
        model,
        directory,
        curriculum={"replay_ratio": 0.5},
        search={
            "grid": {"curriculum": {"level_order": [["1", "2", "3"], ["1", "2"]]}},
            "baselines": [{"curriculum": {"level_order": ["1", "3"], "replay_ratio": 0.0}}],
            "max_concurrent_stages": 2,
        },
    )
    settings["sft"]["max_steps"] = 2
    return save_recipe(directory, settings)


def student_recipe(model: Path, directory: Path) -> Path:
    """One stage on written problems and on real ones, two seeds. The recipe's own data is made here as well."""
    numbers = {"real/train": range(10, 16), "real/test": range(20, 24), "written": range(30, 36)}
    for name, values in numbers.items():
        rows = ({"problem": f"{a} + {a}?", "solution": "so", "answer": f"{2 * a}", "type": ""} for a in values)
        write_jsonl(directory / f"{name}.jsonl", *({**row, "level": "12"[n % 2]} for n, row in enumerate(rows)))
    out = directory / "student"
    prepare_student(StudentSettings(directory / "written.jsonl", str(directory / "real"), out, str(model)))
    settings = tiny_settings(
        model,
        out / "real",
        curriculum={"replay_ratio": 0.0},
        stages=[{"name": "student", "kind": "sft"}],
        search={
            "seeds": [0, 1],
            "grid": {"data": {"name": [str(out / "written")]}},
            "baselines": [{"data": {"name": str(out / "real")}}],
        },
    )
    settings["data"] = {"name": str(out / "real"), "system_prompt": ""}
    settings["data"]["fields"] = {"solution": "solution", "level": "level", "id": "id"}
    settings["sft"] |= {"max_steps": 2, "num_train_epochs": 4}
    return save_recipe(directory, settings)


def _write_levels(directory: Path, num_levels: int) -> None:
    for split, numbers in (("train", range(24)), ("test", range(24, 28))):
        rows = (
            {"question": f"{a} {sign} {a}?", "answer": f"so #### {a}", "level": level}
            for level, sign in list(SIGNS.items())[:num_levels]
            for a in numbers
        )
        write_jsonl(directory / f"{split}.jsonl", *rows)


def evaluation_recipe(models: dict[str, Path], directory: Path, *, num_problems: int) -> Path:
    """The models answer the problems twice each, in chunks of 8; the last prompt is too long for the engine."""
    rows = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(num_problems - 1)]
    rows.append({"question": "so " * 40 + "1 + 1?", "answer": "2"})
    write_jsonl(directory / "test.jsonl", *rows)
    settings = {
        "model": {name: str(path) for name, path in models.items()},
        "dataset": str(directory / "test.jsonl"),
        "data": {"eval_split": "train"},  # the only split of a single file
        "prompt": {"template": "{question} "},
        "loading": {"dtype": "float32"},
        "rollout": {"num_samples": 2, "temperature": 1.0, "max_prompt_length": 64, "max_completion_length": 24}
        | {"prompts_per_chunk": 8, "num_threads": 1, "kv_cache_gib": 0.3, "memory_gib": 0.3, "num_cpus": 0.1},
        "seed": 5,
    }
    return save_recipe(directory, settings)
