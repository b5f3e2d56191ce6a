"""Rollout groups and ledgers made by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runs.ledger import LedgerRow, LedgerWriter, ledger_rows
from pipeline.types import Completion, EngineRecord, Problem, RewardBreakdown, RolloutGroup, WeightId
from tests.support.runs import write_metrics

BATCH = 2
STEPS = 4


def group(step: int, position: int, record: EngineRecord | None = None) -> RolloutGroup:
    """Two completions, of 2 tokens and right, and of 3 and cut off: rewards 1 and 0."""
    tokens = {"token_ids": np.array([1, 2]), "sampler_logprobs": np.array([-0.1, -0.2], dtype=np.float32)}
    longer = {"token_ids": np.array([1, 2, 3]), "sampler_logprobs": np.array([-1 / 3, -2, -3], dtype=np.float32)}
    completions: list[Any] = [
        Completion(**tokens, text="√2 \ud800", stop_reason="stop"),
        Completion(**longer, text="", stop_reason="length"),
    ]
    rewards = (RewardBreakdown(1.0, {"b": 1.0, "a": 0.5}, "correct"), RewardBreakdown(0.0, {"b": 0.0}, "unparsed"))
    problem = Problem(f"p{position}", (), "1")
    seeds, version = (10 * step + position, 7), WeightId(5, step - 1)
    return RolloutGroup(problem, (4, 5), tuple(completions), version, rewards, seeds, record)


def good_rows() -> list[LedgerRow]:
    """Two engines take turns; the second group of the last step has no gradient."""
    rows: list[LedgerRow] = []
    for step in range(1, STEPS + 1):
        records = [EngineRecord(f"engine {place}", step - 1, f"sum{step - 1}", step - 1) for place in range(BATCH)]
        groups = [group(step, place, record) for place, record in enumerate(records)]
        rows += ledger_rows(groups, ["trained", "truncated" if step == STEPS else "trained"], "rl", step, step - 1)
    return rows


def good_metrics() -> list[dict[str, Any]]:
    """Metrics of the same steps, worked out by hand."""
    return [
        {
            "step": step,
            "stage": "rl",
            "kind": "grpo",
            "num_groups": 2,
            "num_groups_trained": 1 if step == STEPS else 2,
            "reward_mean": 0.5,
            "reward_std": 0.5,
            "correct_frac": 0.5,
            "unparsed_frac": 0.5,
            "timeout_frac": 0.0,
            "bad_gold_frac": 0.0,
            "truncated_frac": 0.5,
            "completion_length_mean": 2.5,
            "policy_version": step - 1,
            "staleness": 0,
            "weights_checksum": f"sum{step}",
        }
        for step in range(1, STEPS + 1)
    ]


def write_run(
    run_dir: Path,
    rows: list[LedgerRow],
    metrics: list[dict[str, Any]],
    max_staleness: int = 0,
    sampler: str = "uniform",
    replay: str | None = None,
    **grpo: Any,
) -> Path:
    write_metrics(run_dir, metrics)
    config = {
        "stages": [{"name": "rl", "settings": {"batch_size": BATCH}}],
        "grpo": {"batch_size": 9, "num_generations": 2, "sampler": {"name": sampler}, **grpo},
        "rollout": {"max_staleness": max_staleness, "replay": replay},
    }
    (run_dir / "experiment_config.json").write_text(json.dumps(config))
    writer = LedgerWriter(run_dir, 0)
    writer.write(rows)
    writer.sync()
    return run_dir


def changed(rows: list[LedgerRow], index: int, **values: Any) -> list[LedgerRow]:
    return [replace(row, **values) if place == index else row for place, row in enumerate(rows)]
