"""How a learner's session starts and counts on files, without engines."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.handles import ActorHandles
from actors.learner.session import LearnerSession
from pipeline.config import validate_config
from pipeline.errors import ModelError
from pipeline.models.policy import snapshot
from pipeline.runs.checkpoints import CheckpointStore, Progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.metrics_log import MetricsWriter
from tests.support.loops import LocalHandle, LocalStore, run_loops, write_splits
from tests.support.models import tiny_llama


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


class Ranks:
    """The second of two workers."""

    rank, size, is_first = 1, 2, False

    def __init__(self, named: Path | None, digests: list[str]) -> None:
        self._named, self._digests = named, digests

    def from_first(self, make: Any) -> Path | None:
        return self._named

    def check_equal(self, digest: str, what: str) -> None:
        self._digests.append(digest)
        if digest != self._digests[0]:
            raise ModelError(what)


def second_worker(run: RunDirectory, named: Path | None, digests: list[str], model: Any) -> Any:
    """A session of which only ``_restore`` is called."""
    session = object.__new__(LearnerSession)
    policy = SimpleNamespace(restore=lambda checkpoint: model.load_state_dict(checkpoint.tensors, strict=False))
    stage, setup = SimpleNamespace(name="sft"), SimpleNamespace(parent=None)
    vars(session).update(ranks=Ranks(named, digests), _run=run, model=model, policy=policy, stage=stage, _setup=setup)
    return session


def save(store: CheckpointStore, step: int) -> Path:
    return store.save(Progress("sft", step, step), snapshot(tiny_llama(seed=step)), {}, None)


def test_every_worker_resumes_from_the_checkpoint_that_rank_0_names(tmp_path):
    """A worker on another node may see a newer one, or not see the newest one yet."""
    run = RunDirectory(tmp_path)
    named, _newer = save(run.checkpoints, 1), save(run.checkpoints, 2)
    model = tiny_llama()
    progress = second_worker(run, named, [], model)._restore()
    assert progress.step == 1
    assert torch.equal(model.lm_head.weight, tiny_llama(seed=1).lm_head.weight)


@pytest.mark.parametrize("resumes", [True, False])
def test_workers_with_other_weights_do_not_train_together(tmp_path, resumes):
    run = RunDirectory(tmp_path)
    named = save(run.checkpoints, 1) if resumes else None
    digests: list[str] = []
    for _ in range(2):
        second_worker(run, named, digests, tiny_llama())._restore()
    assert len(set(digests)) == 1
    digests[0] = "that of rank 0"
    with pytest.raises(ModelError, match="weights"):
        second_worker(run, named, digests, tiny_llama())._restore()
