import gc
import os
from pathlib import Path

import pytest

from pipeline.config import Config, validate_config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs import directory
from pipeline.runs.directory import JOB_LOCK, LEARNER_LOCK, RunDirectory, hold_lock


def config(root: Path) -> Config:
    return validate_config({"stages": [{"name": "grpo", "kind": "grpo"}], "output": {"root": str(root)}})


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(config(tmp_path))


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
        run.checkpoints.latest() is None
        and run.checkpoints.latest_progress() is None
        and run.checkpoints.best() is None
    )


def test_runs_created_in_the_same_second_get_different_directories(tmp_path):
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


@pytest.mark.parametrize("name", [JOB_LOCK, LEARNER_LOCK])
def test_a_job_waits_for_another_job_and_for_a_learner(run, monkeypatch, name):
    monkeypatch.setattr(directory, "LOCK_TIMEOUT_S", 0.0)
    with hold_lock(run.path, name), pytest.raises(CheckpointError, match="is in use by another job"), run.locked():
        pass
    with run.locked():
        run.lock_for_learner()  # the job's own learner, perhaps on another node
        run.unlock()


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_lock_that_cannot_be_had_leaves_no_open_file(run, monkeypatch):
    monkeypatch.setattr(directory, "LOCK_TIMEOUT_S", 0.0)
    with run.locked(), pytest.raises(CheckpointError):
        hold_lock(run.path)
    gc.collect()
