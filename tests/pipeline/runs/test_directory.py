import json
import os
import time
from pathlib import Path

import pytest
import torch

from pipeline.config import Config, validate_config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import write_json, write_jsonl
from pipeline.runs.checkpoints import Progress, load_checkpoint, read_progress
from pipeline.runs.clock import PhaseClock
from pipeline.runs.directory import RunDirectory


def config(root: Path) -> Config:
    return validate_config({"stages": [{"name": "grpo", "kind": "grpo"}], "output": {"root": str(root)}})


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(config(tmp_path))


def save(run: RunDirectory, step: int, **progress) -> Path:
    fields = {"stage": "grpo", "stage_step": step, "step": step, **progress}
    return run.checkpoints.save(Progress(**fields), {"w": torch.full((2,), float(step))}, {}, None)


def names(run: RunDirectory) -> list[str]:
    return [path.name for path in run.checkpoints.paths()]


# The directory -----------------------------------------------------------------------------------


def test_a_new_run_has_its_directories_and_its_configuration(tmp_path):
    run = RunDirectory.create(config(tmp_path / "not" / "there" / "yet"))
    assert run.path.name.startswith("exp_2")
    assert sorted(p.name for p in run.path.iterdir() if p.is_dir()) == [
        "checkpoints",
        "eval",
        "logs",
        "metrics",
        "samples",
    ]
    assert run.load_config() == config(tmp_path / "not" / "there" / "yet")
    assert (
        run.checkpoints.load_latest() is None
        and run.checkpoints.latest_progress() is None
        and run.checkpoints.best() is None
    )


def test_runs_of_one_second_get_directories_of_their_own(tmp_path):
    assert len({RunDirectory.create(config(tmp_path)).path for _ in range(4)}) == 4


@pytest.mark.parametrize("root", ["file", "file/below"])
def test_a_root_that_cannot_be_written_is_a_config_error(tmp_path, root):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"output\.root must be writable, got .*file"):
        RunDirectory.create(config(tmp_path / root))


def test_a_run_is_opened_by_its_path_or_as_the_latest(tmp_path):
    first, second = RunDirectory.create(config(tmp_path)), RunDirectory.create(config(tmp_path))
    (tmp_path / "exp_unfinished").mkdir()  # no configuration yet
    os.utime(first.path / "experiment_config.json", (1, 1))
    assert RunDirectory.open("latest", str(tmp_path)).path == second.path
    assert RunDirectory.open(str(first.path), "/nowhere").path == first.path
    os.utime(second.path / "experiment_config.json", (0, 0))
    assert RunDirectory.open("latest", str(tmp_path)).path == first.path


def test_opening_what_is_not_a_run_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="no run under"):
        RunDirectory.open("latest", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"must hold experiment_config\.json, got .*typo"):
        RunDirectory.open(str(tmp_path / "typo"), str(tmp_path))


def test_a_broken_run_configuration_is_named(run):
    (run.path / "experiment_config.json").write_text('{"seed": ')
    with pytest.raises(CheckpointError, match=r"experiment_config\.json cannot be read"):
        run.load_config()


def test_a_run_is_resumed_by_a_job_of_its_kind(run):
    run.require_kind("chain")
    with pytest.raises(CheckpointError, match="must be resumed by the job that started it: it is a run of one chain"):
        run.require_kind("search")
    (run.path / "stages").mkdir()
    with pytest.raises(CheckpointError, match=r"must be resumed by jobs/search_replay\.py: it is a search"):
        run.require_kind("chain")


# Checkpoints -------------------------------------------------------------------------------------


def trained_optimizer() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, betas=(0.9, 0.99))
    parameter.grad = torch.tensor([0.5, 0.25])
    optimizer.step()
    return parameter, optimizer


def test_a_checkpoint_comes_back_as_it_was(run):
    parameter, optimizer = trained_optimizer()
    progress = Progress("grpo", 3, 36, False, [0.5, 1.25], 1.5)
    tensors = {"a": parameter, "b": torch.arange(6.0).view(2, 3).bfloat16().t()}
    path = run.checkpoints.save(progress, tensors, optimizer.state_dict(), {"a": torch.tensor([7.0, 8.0])})
    assert path == run.checkpoints.path / "step_000036"
    loaded = RunDirectory(run.path).checkpoints.load_latest()
    assert loaded is not None
    assert loaded.path == path and loaded.progress == progress == run.checkpoints.latest_progress()
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


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(run):
    for step in (9, 10, 2):
        save(run, step)
    assert names(run) == ["step_000002", "step_000009", "step_000010"]
    save(run, 10, stage_done=True)
    assert names(run)[-1] == "step_000010_done"  # after its own step without the mark
    latest = run.checkpoints.latest_progress()
    assert latest is not None and latest.stage_done and latest.step == 10
    save(run, 11)
    assert names(run)[-1] == "step_000011"


def test_a_step_can_be_saved_again(run):
    save(run, 5, score=1.0)
    save(run, 5, score=2.0)
    loaded = run.checkpoints.load_latest()
    assert names(run) == ["step_000005"]
    assert loaded is not None and loaded.progress.score == 2.0


@pytest.mark.parametrize(
    "killed_in", ["torch.save", "pipeline.runs.checkpoints.write_json", "pipeline.runs.checkpoints._fsync"]
)
def test_a_checkpoint_cut_short_is_never_seen_and_is_cleaned_up(run, monkeypatch, killed_in):
    def killed(*_):
        raise KeyboardInterrupt

    save(run, 1)
    with monkeypatch.context() as patch:
        patch.setattr(killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            save(run, 2)
    assert list(run.checkpoints.path.glob(".step_000002*"))  # something half-written is there
    latest = RunDirectory(run.path).checkpoints.load_latest()
    assert names(run) == ["step_000001"] and latest is not None and latest.progress.step == 1
    save(run, 2)  # what was left does not stand in the way
    assert names(run) == ["step_000001", "step_000002"]
    (run.checkpoints.path / ".step_000003.partial").mkdir()
    run.checkpoints.prune(2)
    assert sorted(p.name for p in run.checkpoints.path.iterdir()) == ["checkpoint_last", "step_000001", "step_000002"]


@pytest.mark.parametrize("name", ["policy.safetensors", "reference.safetensors", "optimizer.pt", "progress.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(run, name, damage):
    tensors = {"w": torch.ones(2)}
    path = run.checkpoints.save(Progress("grpo", 1, 1), tensors, trained_optimizer()[1].state_dict(), tensors) / name
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=rf"step_000001 is corrupt \(.*{name}.*Delete "):
        run.checkpoints.load_latest()


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_damaged_manifest_is_a_checkpoint_error(run, content):
    manifest = save(run, 1) / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    with pytest.raises(CheckpointError, match=r"step_000001 is corrupt"):
        load_checkpoint(manifest.parent)


def test_progress_of_another_version_is_a_checkpoint_error(run):
    path = save(run, 1)
    (path / "progress.json").write_text('{"stage": "grpo", "colour": "green"}')
    with pytest.raises(CheckpointError, match=r"progress\.json.*colour"):
        read_progress(path)


# Pruning -----------------------------------------------------------------------------------------


def test_pruning_keeps_the_last_and_the_best(run):
    for step, score in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
        save(run, step, score=score)
    run.checkpoints.prune(2)
    assert names(run) == ["step_000002", "step_000004", "step_000005"]
    save(run, 6, score=0.95)
    run.checkpoints.prune(1)
    assert names(run) == ["step_000006"]


def test_results_of_stages_are_kept_and_linked(run):
    save(run, 1, stage="level_1", stage_done=True, score=1.0)
    for step in (2, 3, 4):
        save(run, step, stage="level_2", score=float(step))
    run.checkpoints.prune(1)
    assert names(run) == ["step_000001_done", "step_000004"]
    assert list(run.checkpoints.stage_results()) == ["level_1"]
    links = {path.name: os.readlink(path) for path in run.checkpoints.path.iterdir() if path.is_symlink()}
    last = "step_000004"
    assert links == {"level_1": "step_000001_done", "checkpoint_last": last, "checkpoint_best": last}  # fit to be moved
    (run.checkpoints.path / "checkpoint_last").unlink()  # as if killed before it was made
    run.checkpoints.refresh_links()
    assert (run.checkpoints.path / "checkpoint_last").resolve().name == "step_000004"


def test_the_best_is_of_the_newest_stage_and_the_later_of_equals(run):
    save(run, 1, stage="sft", score=5.0)
    save(run, 2, score=0.5)
    save(run, 3, score=0.5)
    save(run, 4, score=None)
    save(run, 5, score=0.4)
    best = run.checkpoints.best()
    assert best is not None and best.name == "step_000003"
    run.checkpoints.prune(1)
    assert names(run) == ["step_000003", "step_000005"]


def test_the_link_to_the_best_goes_with_the_stage_it_was_of(run):
    save(run, 1, stage="sft", score=5.0)
    link = run.checkpoints.path / "checkpoint_best"
    assert os.readlink(link) == "step_000001"
    save(run, 2, score=None)
    run.checkpoints.prune(1)
    assert not link.is_symlink() and run.checkpoints.best("sft") is None
    save(run, 3, score=0.5)
    assert os.readlink(link) == "step_000003"


def test_nothing_has_a_score_yet(run):
    save(run, 1)
    assert run.checkpoints.best() is None
    run.checkpoints.prune(1)
    assert names(run) == ["step_000001"]


def test_a_kill_while_pruning_leaves_nothing_that_counts_as_a_checkpoint(run, monkeypatch):
    def killed(path, *_, **__):
        (Path(path) / "progress.json").unlink()
        raise KeyboardInterrupt

    for step in (1, 2, 3):
        save(run, step, score=float(step))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.runs.checkpoints.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run.checkpoints.prune(2)
    save(run, 4, score=4.0)
    run.checkpoints.prune(2)
    assert names(run) == ["step_000003", "step_000004"]


def test_a_reference_need_not_be_contiguous(run):
    turned = torch.arange(6.0).view(2, 3).t()
    run.checkpoints.save(Progress("grpo", 1, 1), {"w": turned}, {}, {"w": turned.clone()})
    loaded = run.checkpoints.load_latest()
    assert loaded is not None and loaded.reference is not None
    assert torch.equal(loaded.reference["w"], turned)


# Files and clocks --------------------------------------------------------------------------------


def test_json_files_are_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with path.open() as reader:
        write_json(path, {"a": 2})
        assert json.load(reader) == {"a": 1}
    assert json.loads(path.read_text()) == {"a": 2}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 2}


def test_hostile_text_can_be_written(tmp_path):
    rows = [{"text": "lone \ud800 surrogate, \u2028 separator, \x00 and é"}, {"text": "b"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == [rows[0]["text"].replace("\ud800", "?"), "b"]
    write_json(tmp_path / "a.json", rows[0])
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


class Ticks:
    """A clock that is told what to say."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_a_lap_leaves_nothing_out(monkeypatch):
    ticks = Ticks(monkeypatch)
    clock = PhaseClock()
    for phase, seconds in [("rollout", 4.0), ("", 0.5), ("learner", 2.0), ("rollout", 1.0), ("checkpoint", 8.0)]:
        if phase:
            with clock(phase):
                ticks.now += seconds
        else:
            ticks.now += seconds
    expected = {"rollout_s": 5.0, "learner_s": 2.0, "reward_s": 0.0, "other_s": 0.5, "step_s": 7.5, "checkpoint_s": 8.0}
    assert clock.lap(["rollout", "learner", "reward"]) == pytest.approx(expected)
    ticks.now += 3.0  # the next lap starts where the last one ended
    with clock("learner"):
        ticks.now += 1.0
    expected = {"learner_s": 1.0, "other_s": 3.0, "step_s": 4.0, "checkpoint_s": 0.0}
    assert clock.lap(["learner"]) == pytest.approx(expected)


def test_a_phase_that_fails_is_counted(monkeypatch):
    ticks = Ticks(monkeypatch)
    clock = PhaseClock()
    with pytest.raises(ValueError), clock("learner"):
        ticks.now += 2.0
        raise ValueError
    assert clock.lap(["learner"])["learner_s"] == 2.0
