"""A learner's session without engines: what it counts on, and the memory it measures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.handles import ActorHandles
from actors.learner import session
from pipeline.config import validate_config
from pipeline.runs import memory_monitor
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.runs.metrics_log import MetricsWriter, read_metrics
from tests.support.loops import LocalHandle, LocalStore, run_loops, write_splits
from tests.support.memory import FakeAllocator, reading


def train(tiny_model: Path, root: Path) -> Path:
    """Three steps of SFT, with a checkpoint after two of them and at the end."""
    write_splits(root / "data", [{"question": f"{a}?", "answer": f"so #### {a}"} for a in range(8)])
    config = validate_config(
        {
            "model": {"name": str(tiny_model), "dtype": "float32", "device": "cpu"},
            "data": {"name": str(root / "data"), "answer_format": "hash", "system_prompt": ""},
            "stages": [{"name": "sft", "kind": "sft"}],
            "sft": {"per_device_train_batch_size": 2, "max_steps": 3},
            "learner": {"num_threads": 1},
            "eval": {"problems_per_level": 0},
            "checkpoint": {"every_steps": 2},
            "output": {"root": str(root / "runs"), "save_final_model": False},
            "tracking": {"backends": []},
        }
    )
    return run_loops(config, ActorHandles((), (), LocalHandle(LocalStore()))).path


def test_metrics_are_on_the_disk_before_the_checkpoint_that_counts_on_them(tiny_model, tmp_path, monkeypatch):
    events: list[str] = []
    for owner, name in ((MetricsWriter, "write"), (MetricsWriter, "sync"), (CheckpointStore, "save")):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name), name, events))
    train(tiny_model, tmp_path)
    assert events == ["write", "write", "sync", "save", "write", "sync", "save"]


def test_memory_is_in_every_row_and_a_full_device_is_relieved(tiny_model, tmp_path, monkeypatch):
    notices: list[str] = []
    monkeypatch.setattr(memory_monitor, "notify", notices.append)
    allocator = FakeAllocator(
        {"cuda:0": reading(1, 1, 9, 2)},  # model_loaded
        {"cuda:0": reading(1, 1, 8, 2)},  # evaluation
        {"cuda:0": reading(3, 6, 5, 7)},  # backward
        {"cuda:0": reading(2, 6, 4, 7)},  # learner
        {"cuda:0": reading(3, 8.5, 8, 9.5)},  # backward: 95 % full
        {"cuda:0": reading(3, 4, 3, 5)},  # after the release
        {"cuda:0": reading(2, 4, 3, 5)},
    )
    monkeypatch.setattr(session, "allocator_of", lambda device: allocator)
    run = train(tiny_model, tmp_path)
    rows = read_metrics(run)
    assert [row["memory/peak_gib"] for row in rows] == [5, 8, 3]
    assert [row["memory/reserved_gib"] for row in rows] == [6, 8.5, 4]
    assert [row["learner_memory_gib"] for row in rows] == [9, 9, 9]  # so far
    assert [row.get("memory/released_gib") for row in rows] == [None, 4.5, None]
    points = json.loads((run / "memory.json").read_text())["sft"]
    assert list(points) == ["model_loaded", "evaluation", "backward", "learner", "checkpoint"]
    assert points["backward"]["peak_gib"] == 8 and points["learner"]["peak_gib"] == 4
    assert allocator.num_releases == 1 and len(notices) == 1
    assert notices[0].startswith("stage sft: cuda:0 is 95% full after backward")


def noted(function: Callable[..., Any], name: str, events: list[str]) -> Callable[..., Any]:
    """The function, with a note of every call."""

    def called(*arguments: Any, **named: Any) -> Any:
        events.append(name)
        return function(*arguments, **named)

    return called
