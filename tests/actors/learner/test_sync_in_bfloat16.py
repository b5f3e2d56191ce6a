"""Weights that a run in bfloat16 hands over: the GRPO loop with a learner, a grader, and an engine that only writes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from actors.engine_loop import Chunk
from actors.handles import ActorHandles
from actors.reward import RewardWorker
from pipeline.config import Config, validate_config
from pipeline.runs.metrics_log import read_metrics
from pipeline.types import Answer, Completion, EngineRecord, WeightId
from tests.support.loops import LocalHandle, LocalStore, run_loops, write_splits
from tests.support.recipes import REWARDS


class SeededWriter:
    """Writes four letters per completion, which follow from its seed."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def sync(self, weight_id: WeightId) -> None: ...

    def complete(self, chunk: Chunk, index: int) -> Answer:
        completions = tuple(self._write(seed) for seed in chunk.requests[index].seeds)
        assert self._store.held is not None
        weight_id, weights = self._store.held
        return Answer(completions, weight_id, EngineRecord("engine", index, weights.checksum, weight_id.step))

    def _write(self, seed: int) -> Completion:
        tokens = tuple(33 + (seed >> shift) % 90 for shift in (0, 7, 14, 21))
        return Completion.of(tokens, (-4.0,) * 4, "".join(map(chr, tokens)), "stop")


@pytest.fixture
def actors() -> Iterator[ActorHandles]:
    grader = RewardWorker(
        Config.model_validate(
            {"stages": [{"name": "rl", "kind": "grpo"}], "reward": {"functions": REWARDS, "num_children": 1}}
        )
    )
    store = LocalStore()
    yield ActorHandles((LocalHandle(SeededWriter(store)),), (LocalHandle(grader),), LocalHandle(store))
    grader.close()


def test_engines_and_final_model_get_the_same_weights_with_all_of_the_update(tiny_model, actors, tmp_path: Path):
    """After one update of 1e-5, far below half a unit in the last place of the weights."""
    write_splits(tmp_path, [{"question": f"{a} + {a}?", "answer": f"so #### {2 * a}"} for a in range(8)])
    config = validate_config(
        {
            "model": {"name": str(tiny_model), "dtype": "bfloat16", "device": "cpu", "lora": {"r": 4, "alpha": 8}},
            "data": {"name": str(tmp_path), "answer_format": "hash", "system_prompt": ""},
            "stages": [{"name": "rl", "kind": "grpo"}],
            "grpo": {"batch_size": 2, "num_generations": 4, "num_steps": 1, "learning_rate": 1e-5},
            "rollout": {"max_prompt_length": 64, "max_completion_length": 16, "prompts_per_chunk": 2},
            "reward": {"functions": REWARDS},
            "learner": {"tokens_per_micro_batch": 512, "num_threads": 1},
            "eval": {"problems_per_level": 0},
            "output": {"root": str(tmp_path / "runs")},
            "tracking": {"backends": []},
        }
    )
    run = run_loops(config, actors)
    (row,) = read_metrics(run.path)
    assert row["visible_update_frac"] == pytest.approx(1, abs=0.5)  # to the nearest it would be below 0.05
    assert row["num_skipped_updates"] == 0
    final = load_file(run.path / "final_model" / "model.safetensors")
    held = dict(actors.weight_store._actor.held[1].tensors())
    assert held.keys() == final.keys()
    assert all(tensor.dtype == torch.bfloat16 and torch.equal(tensor, final[name]) for name, tensor in held.items())
    record = json.loads((run.path / "final_model" / "rounding.json").read_text())
    assert record == {
        "dtype": "bfloat16",
        "rounding": "stochastic",
        "visible_update_frac": row["visible_update_frac"],
    }
