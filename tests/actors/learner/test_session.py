"""How a learner's session counts on files, without engines."""

from collections.abc import Callable
from typing import Any

from actors.handles import ActorHandles
from pipeline.config import validate_config
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.runs.metrics_log import MetricsWriter
from tests.support.loops import LocalHandle, LocalStore, run_loops, write_splits


def test_metrics_are_on_the_disk_before_the_checkpoint_that_counts_on_them(tiny_model, tmp_path, monkeypatch):
    write_splits(tmp_path / "data", [{"question": f"{a}?", "answer": f"so #### {a}"} for a in range(8)])
    config = validate_config(
        {
            "model": {"name": str(tiny_model), "dtype": "float32", "device": "cpu"},
            "data": {"name": str(tmp_path / "data"), "answer_format": "hash", "system_prompt": ""},
            "stages": [{"name": "sft", "kind": "sft"}],
            "sft": {"per_device_train_batch_size": 2, "max_steps": 3},
            "learner": {"num_threads": 1},
            "eval": {"problems_per_level": 0},
            "checkpoint": {"every_steps": 2},
            "output": {"root": str(tmp_path / "runs"), "save_final_model": False},
            "tracking": {"backends": []},
        }
    )
    events: list[str] = []
    for owner, name in ((MetricsWriter, "write"), (MetricsWriter, "sync"), (CheckpointStore, "save")):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name), name, events))
    run_loops(config, ActorHandles((), (), LocalHandle(LocalStore())))
    assert events == ["write", "write", "sync", "save", "write", "sync", "save"]


def noted(function: Callable[..., Any], name: str, events: list[str]) -> Callable[..., Any]:
    """The function, with a note of every call."""

    def called(*arguments: Any, **named: Any) -> Any:
        events.append(name)
        return function(*arguments, **named)

    return called
