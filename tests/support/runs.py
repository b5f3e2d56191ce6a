"""A made-up run directory that looks like a real one: an SFT and a GRPO stage on chained sums."""

import json
import math
import random
from pathlib import Path

from tests.support.data import write_jsonl

HOSTILE = '</script></pre><img src=x onerror=alert(1)> & "quoted" \x00 \ud800 \u202e 72'
START = 1_795_000_000.0
LEVELS = ("level 1", "level 2", "level 3", "level 4", "level 5")
STAGES = [{"name": "sft-warmup", "kind": "sft"}, {"name": "grpo-sums", "kind": "grpo"}]


def make_run(run_dir: Path, sft_steps: int = 33, grpo_steps: int = 24, num_evals: int = 3) -> Path:
    """Write everything a finished run holds; deterministic."""
    noise = random.Random(0)
    rows = [_sft_row(i, noise) for i in range(1, sft_steps + 1)]
    rows += [_grpo_row(i, sft_steps + i, noise) for i in range(1, grpo_steps + 1)]
    for index, row in enumerate(rows):
        row["time"] = START + 30.0 * (index + 1)
    write_metrics(run_dir, rows)
    stages = [{**stage, "problems": {}, "settings": {}} for stage in STAGES]
    config = {
        "seed": 0,
        "model": {"name": "embedded:smollm2-135m-instruct", "lora": None},
        "stages": stages,
        "sft": {"per_device_train_batch_size": 16, "learning_rate": 5e-5},
        "grpo": {"batch_size": 16, "num_generations": 8, "learning_rate": 1.5e-5},
        "rollout": {"max_completion_length": 128},
    }
    (run_dir / "experiment_config.json").write_text(json.dumps(config))
    _write_evaluations(run_dir, sft_steps, grpo_steps, num_evals, noise)
    for step in range(sft_steps + 10 - sft_steps % 10, sft_steps + grpo_steps + 1, 10):
        write_jsonl(run_dir / "samples" / f"step_{step:06d}.jsonl", *_samples(step, noise))
    return run_dir


def write_metrics(run_dir: Path, rows: list[dict]) -> Path:
    return Path(write_jsonl(run_dir / "metrics" / "metrics.jsonl", *rows))


def _sft_row(step: int, noise: random.Random) -> dict:
    loss = 0.15 + 2.2 * math.exp(-step / 7) + noise.gauss(0, 0.05)
    seconds = {"rollout_s": 0.0, "reward_s": 0.0, "learner_s": noise.uniform(4, 5), "other_s": 0.2}
    return {
        "step": step,
        "stage": "sft-warmup",
        "kind": "sft",
        "stage_step": step,
        "loss": loss,
        "grad_norm": 2 + noise.random(),
        "learning_rate": 5e-5,
        "token_accuracy": 1 - loss / 4,
        "num_examples": 16,
        "num_tokens": 800,
        "learner_tokens_per_s": noise.gauss(520, 30),
        **seconds,
        "step_s": sum(seconds.values()),
        "checkpoint_s": 0.0,
    }


def _grpo_row(stage_step: int, step: int, noise: random.Random) -> dict:
    correct = 0.35 + 0.012 * stage_step + noise.gauss(0, 0.05)
    seconds = {
        "rollout_s": noise.uniform(7, 10),
        "reward_s": noise.uniform(0.3, 0.8),
        "learner_s": noise.uniform(7, 12),
        "weight_sync_s": noise.uniform(0.3, 0.6),
        "other_s": noise.uniform(0.1, 0.4),
    }
    return {
        "step": step,
        "stage": "grpo-sums",
        "kind": "grpo",
        "stage_step": stage_step,
        "iteration": 1,
        "loss": noise.gauss(0, 0.02),
        "grad_norm": noise.uniform(0.5, 1.5),
        "learning_rate": 1.5e-5,
        "kl": 0.0,
        "reward_mean": correct + 0.97,
        "reward_std": 0.6,
        "reward/correctness": correct,
        "reward/format": 0.97,
        "correct_frac": correct,
        "unparsed_frac": 0.02,
        "timeout_frac": 1 / 128 if stage_step == 5 else 0.0,
        "bad_gold_frac": 0.0,
        "zero_variance_frac": 0.4,
        "completion_length_min": noise.randint(18, 24),
        "completion_length_mean": 38 + noise.gauss(0, 2),
        "completion_length_max": noise.choice([70, 90, 128]),
        "truncated_frac": 0.01,
        "rollout_tokens_per_s": noise.gauss(560, 30),
        "learner_tokens_per_s": noise.gauss(430, 30),
        **seconds,
        "step_s": sum(seconds.values()),
        "checkpoint_s": 1.5 if stage_step % 10 == 0 else 0.0,
        "policy_version": step - 1,
        "staleness": 0,
    }


def _write_evaluations(run_dir: Path, sft_steps: int, grpo_steps: int, count: int, noise: random.Random) -> None:
    tagged = {
        "before": (0.0, 0.0, 0.0, 0.0, 0.0),
        "sft-warmup": (0.75, 0.26, 0.10, 0.04, 0.02),
        "grpo-sums": (0.80, 0.34, 0.18, 0.08, 0.04),
    }
    steps = {"before": 0, "sft-warmup": sft_steps, "grpo-sums": sft_steps + grpo_steps}
    for name in list(tagged)[:count]:
        levels = {level: _result(frac, name, 50) for level, frac in zip(LEVELS, tagged[name], strict=True)}
        overall = _result(sum(tagged[name]) / len(LEVELS), name, 250)
        path = run_dir / "eval" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name, "step": steps[name], "levels": levels, "overall": overall}))
        rows = [
            {
                "problem_id": f"{level}-{i}",
                "level": level,
                "question": "What is 41 + 31?",
                "gold": "72",
                "completion": "The sum is 71." if name == "before" else _worked(noise.choice(["72", "71"])),
                "tagged": name != "before",
                "last_number": False,
            }
            for level in LEVELS
            for i in range(3)
        ]
        write_jsonl(run_dir / "samples" / f"eval_{name}.jsonl", *rows)


def _result(frac: float, name: str, num_problems: int) -> dict:
    last = min(frac + (0.12 if name == "before" else 0.01), 1.0)
    lengths = {"completion_length_mean": 38.5, "truncated_frac": 0.02}
    return {"num_problems": num_problems, "accuracy_tagged": frac, "accuracy_last_number": last, **lengths}


def _samples(step: int, noise: random.Random) -> list[dict]:
    rows = []
    for index in range(8):
        right = noise.random() < 0.5
        text = HOSTILE if index == 1 else _worked("72" if right else "70")
        rows.append(
            {
                "step": step,
                "stage": "grpo-sums",
                "problem_id": f"p{index // 2}",
                "level": LEVELS[index // 2],
                "question": "What is 41 + 31?",
                "gold": "72",
                "completion": text,
                "reward": 1.0 + right,
                "parts": {"correctness": float(right), "format": 1.0},
                "outcome": "correct" if right else "incorrect",
                "stop_reason": "stop",
            }
        )
    return rows


def _worked(answer: str) -> str:
    return (
        f"<reasoning>\n41 + 31: 40 + 30 = 70, 1 + 1 = 2.\nTogether {answer}.\n</reasoning>\n<answer>{answer}</answer>"
    )
