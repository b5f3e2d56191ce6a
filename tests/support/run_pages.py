"""Runs whose page has an atlas: problems, groups and their completions."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.files import write_table
from pipeline.runs.ledger import USED, LedgerRow, LedgerWriter
from pipeline.runs.problem_record import FIELDS, problems_path
from tests.support.data import write_jsonl
from tests.support.runs import write_metrics

Sampled = tuple[int, str, list[str]]
"""Step, problem, and the outcome of each completion."""


def ledger_row(step: int, problem_id: str, outcomes: Sequence[str], position: int = 0, **values: Any) -> LedgerRow:
    rewards = [float(outcome == "correct") for outcome in outcomes]
    mean = sum(rewards) / len(rewards) if rewards else None
    row: dict[str, Any] = {
        **{"stage": "rl", "step": step, "position": position, "step_asked": step - 1, "problem_id": problem_id},
        **{"seeds": (), "weight_attempt": 1, "oldest_version": step - 1, "newest_version": step - 1},
        **{"checksum": None, "engine": None, "order": None},
        **{f"num_{name}": list(outcomes).count(name) for name in ("correct", "incorrect", "unparsed", "timeout")},
        **{"num_bad_gold": list(outcomes).count("bad_gold"), "num_truncated": 0, "num_tokens": 10 * len(outcomes)},
        **{"reward_mean": mean, "reward_std": 0.25, "reward_min": mean, "reward_max": mean, "use": "trained"},
    }
    return LedgerRow(**row | values)


def begin_run(run_dir: Path, problems: Sequence[dict[str, Any]]) -> Path:
    """A run whose GRPO stage has begun."""
    for name in ("metrics", "samples", "eval"):
        (run_dir / name).mkdir(parents=True)
    (run_dir / "experiment_config.json").write_text(json.dumps({"model": {"name": "tiny"}, "data": {}}))
    if problems:
        problems_path(run_dir).mkdir()
        rows = [{name: clean(problem.get(name)) for name in FIELDS} for problem in problems]
        write_table(problems_path(run_dir) / "rl.parquet", pa.Table.from_pylist(rows, schema=_schema()))
    return run_dir


def add_steps(run_dir: Path, rows: Sequence[LedgerRow], texts: dict[tuple[int, str], list[str]] | None = None) -> None:
    """Ledger, stored completions and metrics of further steps."""
    steps = sorted({row.step for row in rows})
    writer = LedgerWriter(run_dir, steps[0] - 1)
    for start in range(0, len(rows), 2048):
        writer.write(rows[start : start + 2048])
    by_step: dict[int, list[LedgerRow]] = {}
    for row in (row for row in rows if row.use in USED):
        by_step.setdefault(row.step, []).append(row)
    for step, own in by_step.items():
        samples = [sample for row in own for sample in _samples(row, (texts or {}).get((step, row.problem_id), []))]
        if samples:
            write_jsonl(run_dir / "samples" / f"step_{step:06d}.jsonl", *samples)
    metrics = run_dir / "metrics" / "metrics.jsonl"
    before = metrics.read_bytes() if metrics.exists() else b""
    write_metrics(run_dir, [metrics_row(step) for step in steps])
    metrics.write_bytes(before + metrics.read_bytes())


def metrics_row(step: int) -> dict[str, Any]:
    noise = random.Random(step)
    names = ("reward/correctness", "correct_frac", "truncated_frac", "entropy", "loss")
    return {
        **{"step": step, "stage": "rl", "kind": "grpo", "time": 1e9 + step, "reward_mean": noise.random()},
        **{name: noise.random() for name in names},
        **{f"completion_length_{name}": noise.randrange(9, 99) for name in ("min", "mean", "max")},
        **{"rollout_tokens_per_s": 500.0, "learner_tokens_per_s": 400.0 + noise.random()},
    }


def _samples(row: LedgerRow, texts: Sequence[str]) -> list[dict[str, Any]]:
    outcomes = [name for name in ("correct", "incorrect", "unparsed") for _ in range(getattr(row, f"num_{name}"))]
    return [
        {
            **{"step": row.step, "stage": row.stage, "problem_id": row.problem_id, "level": "1"},
            **{"question": f"Question {row.problem_id}", "gold": "2", "completion": text, "outcome": outcome},
            **{"reward": float(outcome == "correct"), "parts": {"correctness": 1.0}, "stop_reason": "stop"},
        }
        for text, outcome in zip(texts, outcomes, strict=False)
    ]


def clean(text: str | None) -> str | None:
    """Without lone surrogates, which arrow's tables cannot hold."""
    return text and text.encode(errors="replace").decode()


def _schema() -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in FIELDS])


def many_groups(run_dir: Path, texts: Sequence[str], num_groups: int = 10_000, num_problems: int = 4_000) -> Path:
    """A finished run: 8 groups a step, 8 completions a group, a few problems never tried."""
    chance = random.Random(0)
    problems = [
        {
            **{
                "problem_id": f"p{i}",
                "level": f"level {i % 5}",
                "type": chance.choice(["algebra", "geometry", "sums"]),
            },
            **{
                "source": chance.choice(["gsm8k", "math"]),
                "question": f"{i}: {chance.choice(texts)[:200]}",
                "gold": "2",
            },
        }
        for i in range(num_problems)
    ]
    rows, written = [], {}
    for index in range(num_groups):
        step, problem = 1 + index // 8, f"p{chance.randrange(num_problems - 10)}"
        share = chance.random()
        rows.append(ledger_row(step, problem, [("incorrect", "correct")[chance.random() < share] for _ in range(8)]))
        written[step, problem] = [chance.choice(texts) for _ in range(8)]
    add_steps(begin_run(run_dir, problems), rows, written)
    return run_dir
