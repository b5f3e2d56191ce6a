"""From which checkpoint a learner worker continues, and the proof that all do so alike."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.learner.restore import restore
from pipeline.config import CarryConfig
from pipeline.errors import CheckpointError, ModelError
from pipeline.models.policy import snapshot
from pipeline.runs.checkpoints import CheckpointStore, Progress
from pipeline.runs.directory import RunDirectory
from tests.support.models import tiny_llama


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


def second_worker(run: RunDirectory, named: Path | None, digests: list[str], model: Any) -> Progress:
    """The progress that this worker continues from."""
    policy: Any = SimpleNamespace(
        model=model, restore=lambda checkpoint: model.load_state_dict(checkpoint.tensors, strict=False)
    )
    setup: Any = SimpleNamespace(stage=SimpleNamespace(name="sft"), parent=None, since=0.0)
    ranks: Any = Ranks(named, digests)
    return restore(setup, run, policy, ranks)


def save(store: CheckpointStore, step: int) -> Path:
    return store.save(Progress("sft", step, step), snapshot(tiny_llama(seed=step)), {}, None)


def test_every_worker_resumes_from_the_checkpoint_that_rank_0_names(tmp_path):
    """A worker on another node may see a newer one, or not see the newest one yet."""
    run = RunDirectory(tmp_path)
    named, _newer = save(run.checkpoints, 1), save(run.checkpoints, 2)
    model = tiny_llama()
    progress = second_worker(run, named, [], model)
    assert progress.step == 1
    assert torch.equal(model.lm_head.weight, tiny_llama(seed=1).lm_head.weight)


@pytest.mark.parametrize("resumes", [True, False])
def test_workers_with_other_weights_do_not_train_together(tmp_path, resumes):
    run = RunDirectory(tmp_path)
    named = save(run.checkpoints, 1) if resumes else None
    digests: list[str] = []
    for _ in range(2):
        second_worker(run, named, digests, tiny_llama())
    assert len(set(digests)) == 1
    digests[0] = "that of rank 0"
    with pytest.raises(ModelError, match="weights"):
        second_worker(run, named, digests, tiny_llama())


def test_pissa_must_start_where_the_run_began(tmp_path, monkeypatch):
    """Its start is computed from the model's weights on every load."""
    run = RunDirectory(tmp_path)
    named = run.checkpoints.save(Progress("sft", 1, 1, frozen_start="a" * 16), snapshot(tiny_llama()), {}, None)
    monkeypatch.setattr("actors.learner.restore.start_digest", lambda model: "a" * 16)
    assert second_worker(run, named, [], tiny_llama()).frozen_start == "a" * 16
    monkeypatch.setattr("actors.learner.restore.start_digest", lambda model: "b" * 16)
    with pytest.raises(CheckpointError, match=f"PiSSA's start must be {'a' * 16}, .* got {'b' * 16}"):
        second_worker(run, named, [], tiny_llama())


@pytest.mark.parametrize(("weights", "state"), [(True, {"raw": {"a": [1.0]}}), (False, {})])
def test_the_state_of_rewards_belongs_to_the_weights(weights, state, tmp_path):
    run, model = RunDirectory(tmp_path), tiny_llama()
    before = Progress("first", 3, 3, stage_done=True, reward_state={"raw": {"a": [1.0]}})
    named = run.checkpoints.save(before, snapshot(model), {}, None)
    policy: Any = SimpleNamespace(model=model, carry_over=lambda checkpoint, carry: None)
    setup: Any = SimpleNamespace(
        stage=SimpleNamespace(name="second", carry=CarryConfig(weights=weights)), parent=None, since=0.0
    )
    ranks: Any = Ranks(named, [])
    ranks.check_equal = lambda digest, what: None
    progress = restore(setup, run, policy, ranks)
    assert (progress.stage, progress.step, progress.reward_state) == ("second", 3, state)
