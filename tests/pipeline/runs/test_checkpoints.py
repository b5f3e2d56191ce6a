import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.errors import CheckpointError
from pipeline.runs.checkpoints import (
    Checkpoint,
    CheckpointStore,
    Progress,
    kept,
    load_checkpoint,
    read_progress,
    verify_checkpoint,
)


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def save(store: CheckpointStore, step: int, **progress) -> Path:
    fields = {"stage": "grpo", "stage_step": step, "step": step, **progress}
    return store.save(Progress(**fields), {"w": torch.full((2,), float(step))}, {}, None)


def load_latest(store: CheckpointStore) -> Checkpoint:
    path = store.latest()
    assert path is not None
    return load_checkpoint(path)


def names(store: CheckpointStore) -> list[str]:
    return [path.name for path in store.paths()]


def trained_optimizer() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, betas=(0.9, 0.99))
    parameter.grad = torch.tensor([0.5, 0.25])
    optimizer.step()
    return parameter, optimizer


def test_a_checkpoint_comes_back_as_it_was(store):
    parameter, optimizer = trained_optimizer()
    progress = Progress("grpo", 3, 36, False, [0.5, 1.25], 1.5)
    tensors = {"a": parameter, "b": torch.arange(6.0).view(2, 3).bfloat16().t()}
    path = store.save(progress, tensors, optimizer.state_dict(), {"a": torch.tensor([7.0, 8.0])})
    assert path == store.path / "step_000036"
    loaded = load_latest(CheckpointStore(store.path))
    assert loaded.path == path and loaded.progress == progress == store.latest_progress()
    assert loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensors[name]) for name in tensors)
    assert loaded.tensors["b"].dtype == torch.bfloat16
    assert loaded.reference is not None and loaded.reference["a"].tolist() == [7.0, 8.0]

    resumed = torch.nn.Parameter(parameter.detach().clone())
    other = torch.optim.AdamW([resumed], lr=0.5)
    other.load_state_dict(loaded.optimizer)
    for each, stepper in ((parameter, optimizer), (resumed, other)):
        each.grad = torch.tensor([1.0, -1.0])
        stepper.step()
    assert torch.equal(parameter, resumed)


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(store):
    for step in (9, 10, 2):
        save(store, step)
    assert names(store) == ["step_000002", "step_000009", "step_000010"]
    save(store, 10, stage_done=True)
    assert names(store)[-1] == "step_000010_done"  # after its own step without the mark
    latest = store.latest_progress()
    assert latest is not None and latest.stage_done and latest.step == 10
    save(store, 11)
    assert names(store)[-1] == "step_000011"


def test_a_step_can_be_saved_again(store):
    save(store, 5, score=1.0)
    save(store, 5, score=2.0)
    loaded = load_latest(store)
    assert names(store) == ["step_000005"]
    assert loaded.progress.score == 2.0


@pytest.mark.parametrize(
    "killed_in", ["torch.save", "pipeline.runs.checkpoints.write_json", "pipeline.runs.checkpoints.sync"]
)
def test_a_checkpoint_cut_short_is_never_seen_and_is_cleaned_up(store, monkeypatch, killed_in):
    def killed(*_):
        raise KeyboardInterrupt

    save(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            save(store, 2)
    assert list(store.path.glob(".step_000002*"))  # something half-written is there
    latest = load_latest(CheckpointStore(store.path))
    assert names(store) == ["step_000001"] and latest.progress.step == 1
    save(store, 2)  # the leftovers are no obstacle
    assert names(store) == ["step_000001", "step_000002"]
    (store.path / ".step_000003.partial").mkdir()
    store.prune(2)
    assert sorted(p.name for p in store.path.iterdir()) == ["checkpoint_last", "step_000001", "step_000002"]


@pytest.mark.parametrize("name", ["policy.safetensors", "reference.safetensors", "optimizer.pt", "progress.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(store, name, damage):
    tensors = {"w": torch.ones(2)}
    path = store.save(Progress("grpo", 1, 1), tensors, trained_optimizer()[1].state_dict(), tensors) / name
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=rf"step_000001 is corrupt \(.*{name}.*Delete "):
        load_latest(store)


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_damaged_manifest_is_a_checkpoint_error(store, content):
    manifest = save(store, 1) / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    with pytest.raises(CheckpointError, match=r"step_000001 is corrupt"):
        load_checkpoint(manifest.parent)


def test_progress_of_another_version_is_a_checkpoint_error(store):
    path = save(store, 1)
    (path / "progress.json").write_text('{"stage": "grpo", "colour": "green"}')
    with pytest.raises(CheckpointError, match=r"progress\.json.*colour"):
        read_progress(path)


# Pruning -----------------------------------------------------------------------------------------


def test_pruning_keeps_the_last_and_the_best(store):
    for step, score in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
        save(store, step, score=score)
    store.prune(2)
    assert names(store) == ["step_000002", "step_000004", "step_000005"]
    save(store, 6, score=0.95)
    store.prune(1)
    assert names(store) == ["step_000006"]


def test_results_of_stages_are_kept_and_linked(store):
    save(store, 1, stage="level_1", stage_done=True, score=1.0)
    for step in (2, 3, 4):
        save(store, step, stage="level_2", score=float(step))
    store.prune(1)
    assert names(store) == ["step_000001_done", "step_000004"]
    assert list(store.stage_results()) == ["level_1"]
    links = {path.name: os.readlink(path) for path in store.path.iterdir() if path.is_symlink()}
    last = "step_000004"
    assert links == {"level_1": "step_000001_done", "checkpoint_last": last, "checkpoint_best": last}  # relative
    (store.path / "checkpoint_last").unlink()  # as if killed before it was made
    store.refresh_links()
    assert (store.path / "checkpoint_last").resolve().name == "step_000004"


def test_the_best_is_of_the_newest_stage_and_the_later_of_equals(store):
    save(store, 1, stage="sft", score=5.0)
    save(store, 2, score=0.5)
    save(store, 3, score=0.5)
    save(store, 4, score=None)
    save(store, 5, score=0.4)
    best = store.best()
    assert best is not None and best.name == "step_000003"
    store.prune(1)
    assert names(store) == ["step_000003", "step_000005"]


def test_nan_is_never_the_best(store):
    for step, score in ((1, float("nan")), (2, 0.5), (3, 0.25), (4, float("nan"))):
        save(store, step, score=score)
    best = store.best()
    assert best is not None and best.name == "step_000002"


def test_the_link_to_the_best_is_of_the_newest_stage_only(store):
    save(store, 1, stage="sft", score=5.0)
    link = store.path / "checkpoint_best"
    assert os.readlink(link) == "step_000001"
    save(store, 2, score=None)
    store.prune(1)
    assert not link.is_symlink() and store.best("sft") is None
    save(store, 3, score=0.5)
    assert os.readlink(link) == "step_000003"


def test_nothing_has_a_score_yet(store):
    save(store, 1)
    assert store.best() is None
    store.prune(1)
    assert names(store) == ["step_000001"]


def test_a_kill_while_pruning_leaves_nothing_that_counts_as_a_checkpoint(store, monkeypatch):
    def killed(path, *_, **__):
        (Path(path) / "progress.json").unlink()
        raise KeyboardInterrupt

    for step in (1, 2, 3):
        save(store, step, score=float(step))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.runs.checkpoints.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.prune(2)
    save(store, 4, score=4.0)
    store.prune(2)
    assert names(store) == ["step_000003", "step_000004"]


def test_a_reference_need_not_be_contiguous(store):
    turned = torch.arange(6.0).view(2, 3).t()
    store.save(Progress("grpo", 1, 1), {"w": turned}, {}, {"w": turned.clone()})
    loaded = load_latest(store)
    assert loaded.reference is not None
    assert torch.equal(loaded.reference["w"], turned)


def test_a_checkpoint_that_is_read_is_not_pruned_until_it_was_read(store):
    first = save(store, 1)
    for step in (2, 3):
        save(store, step)
    with kept(first), kept(first):  # by two readers
        store.prune(1)
        assert names(store) == ["step_000001", "step_000003"]
        load_checkpoint(first)
    store.prune(1)
    assert names(store) == ["step_000003"]
    with pytest.raises(CheckpointError, match="step_000001"), kept(first):
        pass


def test_a_reader_that_waited_while_the_checkpoint_was_deleted_is_told(store, monkeypatch):
    first = save(store, 1)
    monkeypatch.setattr("pipeline.runs.checkpoints.fcntl.flock", lambda *_: shutil.rmtree(first))
    with pytest.raises(CheckpointError, match="was just deleted by its run"), kept(first):
        pass


# Laws --------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for kill -9: the store does nothing more."""


class Crash:
    """Dies in the n-th sync or removal of an operation, and leaves that removal half done. Syncs do nothing else: a
    killed process loses nothing that it has written."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._calls_left = 0
        self._rmtree = shutil.rmtree
        patch.setattr("pipeline.runs.checkpoints.sync", lambda path: self._count_down())
        patch.setattr("pipeline.runs.checkpoints.shutil.rmtree", self._remove)

    def run(self, operation: Callable[[], object], dies_at: int) -> bool:
        """True if it came to its end before the call it would have died in."""
        self._calls_left = dies_at
        try:
            operation()
        except Killed:
            return False
        return True

    def _count_down(self) -> None:
        self._calls_left -= 1
        if self._calls_left == 0:
            raise Killed

    def _remove(self, path: Path, ignore_errors: bool = False) -> None:
        for file in path.glob("progress.json"):
            file.unlink()
        self._count_down()
        self._rmtree(path, ignore_errors=ignore_errors)


NEVER = 1000
scores = st.none() | st.integers(-9, 9)
save_step = st.tuples(st.just("save"), scores, st.just(NEVER))
operations = st.one_of(
    save_step,
    save_step,  # most steps are not killed
    st.tuples(st.just("finish stage"), scores, st.just(NEVER)),
    st.tuples(st.just("save"), scores, st.integers(2, 7)),
    st.tuples(st.just("prune"), st.integers(1, 2), st.just(NEVER)),
    st.tuples(st.just("prune"), st.integers(1, 2), st.integers(1, 3)),
)


@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate, Phase.shrink])
@given(st.lists(operations, min_size=8, max_size=12))
def test_whatever_is_killed_the_latest_is_complete_and_the_best_is_kept(operations):
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        crash, num_done = Crash(patch), 0
        saved: list[Progress] = []
        for name, value, dies_at in operations:
            store = CheckpointStore(Path(directory))  # as after a restart
            if name == "prune":
                if crash.run(partial(store.prune, value), dies_at):
                    assert not list(store.path.glob(".*.partial"))
                    assert len(store.paths()) <= value + 1 + num_done
            else:
                ends = name == "finish stage"
                progress = Progress(f"stage_{num_done}", step=len(saved) + 1, score=value, stage_done=ends)
                crash.run(partial(store.save, progress, {"w": torch.ones(1)}, {}, None), dies_at)
                if dies_at >= 7:  # the seventh is the sync of the directory, after the checkpoint has got its name
                    saved.append(progress)
                    num_done += ends
            check(store, saved, num_done)


def check(store: CheckpointStore, saved: list[Progress], num_done: int) -> None:
    for path in store.paths():
        verify_checkpoint(path)
    assert store.latest_progress() == (saved[-1] if saved else None)
    assert list(store.stage_results()) == [f"stage_{index}" for index in range(num_done)]
    scored = [p for p in saved if p.stage == saved[-1].stage and p.score is not None]
    best = store.best()
    expected = max(scored, key=lambda p: (p.score, p.step), default=None)
    assert (read_progress(best) if best else None) == expected
