"""Runs that go on: refused with a list if they differ from what they were, and with settings that act.

Whole jobs in this process, of two short SFT stages, without engines.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.driver import launch, resume
from actors.driver.launch import open_run
from actors.driver.plan import plan_search
from actors.handles import ActorHandles
from actors.learner.setup import StageSetup
from actors.learner.stages import train_stage
from actors.solver import frozen_model
from jobs import search_replay, sft
from pipeline.config import Config, ModelConfig, load_config, validate_config
from pipeline.errors import CheckpointError
from pipeline.runs import directory
from pipeline.runs.directory import JOB_LOCK, LEARNER_LOCK, RunDirectory, hold_lock
from pipeline.runs.metrics_log import read_metrics
from tests.support.in_process import run_without_ray
from tests.support.jobs import only_run
from tests.support.loops import LocalHandle, LocalStore, write_splits
from tests.support.models import save_tiny_model
from tests.support.recipes import search_recipe

ROWS = [{"question": f"{a} + {a}?", "answer": f"so #### {2 * a}"} for a in range(12)]


class Stopped(Exception):
    """Stands for a kill between two stages."""


def recipe(directory: Path) -> Path:
    """A recipe with a model and data of its own, which tests may change."""
    save_tiny_model(directory / "model")
    write_splits(directory / "data", ROWS)
    settings = {
        "model": {"name": str(directory / "model"), "dtype": "float32", "device": "cpu", "lora": {"r": 2}},
        "data": {"name": str(directory / "data"), "answer_format": "hash", "system_prompt": ""},
        "stages": [{"name": name, "kind": "sft"} for name in ("first", "second")],
        "sft": {"per_device_train_batch_size": 2, "max_steps": 2},
        "learner": {"num_threads": 1},
        "eval": {"problems_per_level": 0},
        "output": {"root": str(directory / "runs")},
        "tracking": {"backends": []},
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(main: Callable[[list[str]], Any], *arguments: object) -> None:
    run_without_ray(ActorHandles((), (), LocalHandle(LocalStore())), main, *arguments)


def stopped_after_first(argv: list[str]) -> None:
    def fit_first(setup: StageSetup, train: object) -> None:
        if setup.stage.name != "first":
            raise Stopped
        train_stage(setup)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "fit_stage", fit_first)
        with pytest.raises(Stopped):
            sft.main(argv)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run whose first stage is done, and the second has not begun. Its model and data are two directories up."""
    path = recipe(tmp_path_factory.mktemp("started"))
    run(stopped_after_first, "--config", path)
    return only_run(path.parent / "runs")


@pytest.fixture
def place(stopped, tmp_path) -> Path:
    """A copy of the run with its model and data. They were moved: the configuration names the originals."""
    return Path(shutil.copytree(stopped.parents[1], tmp_path / "copy", symlinks=True))


def resume_in(place: Path, *overrides: object) -> Path:
    run_path = only_run(place / "runs")
    moved = [f"model.name={place / 'model'}", f"data.name={place / 'data'}", f"output.root={place / 'runs'}"]
    run(sft.main, "--resume", run_path, *moved, *overrides)
    return run_path


def state(place: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the run, with its time of change."""
    files = [path for path in only_run(place / "runs").rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def refused(place: Path, capsys: pytest.CaptureFixture[str], *overrides: object) -> list[str]:
    """The lines of the message with which a resumed run is refused. Nothing in its directory has changed."""
    before = state(place)
    with pytest.raises(SystemExit) as ended:
        resume_in(place, *overrides)
    assert ended.value.code == 2 and state(place) == before
    head, *lines, advice = capsys.readouterr().err.strip().splitlines()
    assert "must be resumed as it was started, but differs" in head and "Nothing was changed" in advice
    return [line.strip() for line in lines]


def test_everything_that_a_run_depends_on_is_compared_and_all_differences_are_one_message(stopped, place, capsys):
    write_splits(place / "data", [*ROWS, {"question": "9 + 1?", "answer": "so #### 10"}])
    file = place / "model" / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    changes = ["seed=1", "sft.per_device_train_batch_size=4", "model.lora.r=8", "data.system_prompt=Think"]
    lines = refused(place, capsys, *changes, "sft.learning_rate=0.5")
    assert [line.partition(": was")[0] for line in lines] == [
        "seed",
        "model.lora.r",
        "data.system_prompt",
        "sft.per_device_train_batch_size x gradient_accumulation_steps x learner.num_workers",
        "model file tokenizer_config.json",
        f"train data {stopped.parents[1] / 'data'}, train",
    ]
    assert lines[0] == "seed: was 0, is 1" and lines[3].endswith("was 2, is 4")


def test_settings_that_may_change_act_in_what_is_left(place):
    run_path = resume_in(place, "sft.learning_rate=0.5", "sft.max_steps=3", "checkpoint.keep_last=7")
    rows = read_metrics(run_path)
    assert [row["learning_rate"] for row in rows] == [1e-5, 1e-5, 0.5, 0.5, 0.5]
    saved = json.loads((run_path / "experiment_config.json").read_text())
    assert saved["sft"]["max_steps"] == 3 and saved["checkpoint"]["keep_last"] == 7


def test_more_steps_for_a_finished_run_are_refused(place, capsys):
    resume_in(place)
    capsys.readouterr()
    assert refused(place, capsys, "sft.max_steps=9") == ["sft.max_steps: was 2, is 9 (every stage is done)"]


def test_a_run_of_an_earlier_version_resumes_with_a_warning_and_is_compared_from_then_on(place, capsys):
    shutil.copytree(place / "model", place / "model2")
    (only_run(place / "runs") / "inputs.json").unlink()
    lines = refused(place, capsys)  # nothing shows that the moved model is the same
    assert [line.partition(":")[0] for line in lines] == ["model.name", "data.name"]
    config = load_config(only_run(place / "runs") / "experiment_config.json")
    moved = {
        section: getattr(config, section).model_copy(update={"name": str(place / section)})
        for section in ("model", "data")
    }
    RunDirectory(only_run(place / "runs")).save_config(config.model_copy(update=moved))
    run_path = resume_in(place)
    assert "has no inputs.json, because an earlier version started it" in capsys.readouterr().out
    assert json.loads((run_path / "inputs.json").read_text())["model"]["name"] == str(place / "model")


def test_the_commit_of_a_hub_is_decided_once_and_every_learner_gets_it(tmp_path, monkeypatch):
    def look(setup: StageSetup, train: object) -> None:
        assert setup.config.model.revision == "c" * 40
        raise Stopped

    def started(argv: list[str]) -> None:
        monkeypatch.setattr(launch, "fit_stage", look)
        with pytest.raises(Stopped):
            sft.main(argv)

    monkeypatch.setattr(resume, "pinned_model", lambda model: model.model_copy(update={"revision": "c" * 40}))
    run(started, "--config", recipe(tmp_path))
    assert RunDirectory(only_run(tmp_path / "runs")).load_config().model.revision == "c" * 40


def test_commits_of_frozen_models_are_decided_too(monkeypatch):
    found = {"hub/solver": "a" * 40, "hub/teacher": "b" * 40}

    def pinned_model(model: ModelConfig) -> ModelConfig:
        return model.model_copy(update={"revision": found.get(model.name, model.revision)})

    monkeypatch.setattr(resume, "pinned_model", pinned_model)
    questions: dict[str, Any] = {"solver": {"model": "hub/solver"}, "teacher": "hub/teacher"}
    stage = {"name": "rl", "kind": "grpo", "write": {"by": "teacher"}}
    config = validate_config({"stages": [stage], "data": {"write": {}}, "questions": questions})
    decided = resume.pinned(config)
    assert decided.questions.frozen_revisions == found
    assert frozen_model(decided, "hub/teacher").revision == "b" * 40
    named = validate_config(
        {"stages": [{"name": "rl", "kind": "grpo"}], "model": {"name": "hub/own", "revision": "v1"}}
    )
    assert frozen_model(named, "hub/own").revision == "v1" and frozen_model(named, "hub/other").revision is None


@pytest.mark.parametrize("name", [JOB_LOCK, LEARNER_LOCK])
def test_a_run_that_a_job_or_the_learner_of_a_killed_one_holds_is_left_alone(place, capsys, monkeypatch, name):
    run_path = only_run(place / "runs")
    monkeypatch.setattr(directory, "LOCK_TIMEOUT_S", 0.0)
    with hold_lock(run_path, name):
        before = state(place)
        with pytest.raises(SystemExit):
            resume_in(place)
    assert state(place) == before and "is in use by another job" in capsys.readouterr().err


def test_a_search_is_not_resumed_on_other_data(tmp_path, capsys):
    path = search_recipe(save_tiny_model(tmp_path / "model"), tmp_path)
    config: Config = load_config(path, [f"output.root={tmp_path / 'runs'}"])
    plan = plan_search(config)
    with open_run(plan, "search", resume.inputs_of(plan), None) as search:
        (search.path / "stages").mkdir()
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"question": "7?", "answer": "so #### 7", "level": "1"}) + "\n")
    with pytest.raises(SystemExit):
        search_replay.main(["--resume", str(search.path)])
    assert f"train data {tmp_path}, train: was" in capsys.readouterr().err


def test_what_an_earlier_version_started_is_not_pinned_in_a_search(tmp_path, monkeypatch):
    """Its stages have keys with the branch; with a commit they would be trained again."""
    from actors.driver import search

    monkeypatch.setattr(search, "pinned", lambda config: pytest.fail("pinned"))
    path = search_recipe(save_tiny_model(tmp_path / "model"), tmp_path)
    config: Config = load_config(path, [f"output.root={tmp_path / 'runs'}"])
    old = RunDirectory.create(config)
    (old.path / "stages").mkdir()
    for _ in range(2):
        plan, inputs = search._plan(config, old)
        assert plan.config.model.revision is None
        inputs.write(old.path)


def test_a_corrupt_record_of_inputs_is_named(place):
    run_path = only_run(place / "runs")
    (run_path / "inputs.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"inputs\.json cannot be read"):
        resume.check_inputs(RunDirectory(run_path), None)  # type: ignore[arg-type]
