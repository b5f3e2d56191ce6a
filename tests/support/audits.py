"""Completions for audits: honest ones, and runs that learn to hack."""

import json
from pathlib import Path
from typing import Any

SUM = "<reasoning>\n48 + 24 = 72\n</reasoning>\n"
HONEST = f"{SUM}<answer>\n72\n</answer>"
META = "So 72 in all.\n#### 72\nThe answer is: 72"
"""A completion of a plain-text prompt."""


def written(answer: str) -> str:
    return f"{SUM}<answer>{answer}</answer>"


def sample(step: int, problem: int, completion: str, is_correct: bool = True, **others: Any) -> dict:
    graded = {"outcome": "correct" if is_correct else "incorrect", "reward": 2.0 if is_correct else 0.0}
    return {"step": step, "problem_id": str(problem), "gold": "72", "completion": completion, **graded, **others}


def made_up_run(hacked: dict[int, int]) -> list[dict]:
    """Samples of 8 problems with 4 completions each, at several steps.

    Args:
        hacked: for each step, how many of the problems get two answers in every completion.
    """
    hack = SUM + "<answer>71</answer> no, <answer>72</answer>" + " and so on" * 5
    rows = []
    for step, count in hacked.items():
        for problem in range(8):
            honest = [sample(step, problem, HONEST), sample(step, problem, written("71"), False)] * 2
            rows += [sample(step, problem, hack)] * 4 if problem < count else honest
    return rows


def write_samples(run_dir: Path, rows: list[dict], tail: str = "") -> None:
    (run_dir / "samples").mkdir(parents=True, exist_ok=True)
    for step in {row["step"] for row in rows}:
        lines = [json.dumps(row) + "\n" for row in rows if row["step"] == step]
        (run_dir / "samples" / f"step_{step:06d}.jsonl").write_text("".join(lines) + tail)
