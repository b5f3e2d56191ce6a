from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, validate_config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs.directory import RunDirectory
from pipeline.runs.inputs import Inputs
from pipeline.runs.replay import check_replay, first_difference
from pipeline.runs.rollout_record import write_rollouts
from tests.support.ledgers import group
from tests.support.runs import write_metrics

INPUTS = Inputs({"files": {"a": "1"}}, {"train": {}, "eval": {}})
GRPO = {"stage": "rl", "kind": "grpo"}


def config(**sections: Any) -> Config:
    return validate_config({"stages": [{"name": "rl", "kind": "grpo"}], **sections})


def recorded(path: Path, steps: int = 2, recorded_steps: int = 2) -> Path:
    run = RunDirectory.create_at(path, config())
    INPUTS.write(run.path)
    write_metrics(run.path, [{"step": step, "loss": step / 4, **GRPO} for step in range(1, steps + 1)])
    for step in range(1, recorded_steps + 1):
        write_rollouts(run.path, [group(step, 0)], "rl", step)
    return run.path


def test_room_output_and_evaluations_may_differ(tmp_path):
    record = str(recorded(tmp_path / "a"))
    now = config(
        rollout={"replay": record, "num_workers": 2},
        output={"root": str(tmp_path)},
        eval={"problems_per_level": 0, "at_start": False},
        learner={"memory_gib": 9},
    )
    check_replay(now, INPUTS)  # raises nothing
    check_replay(config(), INPUTS)  # nothing is replayed


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"grpo": {"learning_rate": 0.5}}, "grpo.learning_rate: was"),
        ({"seed": 4}, "seed: was 0, is 4"),
        ({"learner": {"num_threads": 7}}, "learner.num_threads: was 2, is 7"),
        ({"rollout": {"temperature": 0.5}}, "rollout.temperature: was"),
    ],
)
def test_what_would_end_with_other_weights_is_refused(tmp_path, sections, message):
    record = str(recorded(tmp_path / "a"))
    now = config(**{**sections, "rollout": {**sections.get("rollout", {}), "replay": record}})
    with pytest.raises(CheckpointError, match=message):
        check_replay(now, INPUTS)


def test_other_files_and_missing_steps_are_refused(tmp_path):
    now = config(rollout={"replay": str(recorded(tmp_path / "a", steps=3, recorded_steps=1))})
    with pytest.raises(CheckpointError, match=r"model file a: was 1, is 2\n.*2 of 3 steps are not recorded.* is 2"):
        check_replay(now, Inputs({"files": {"a": "2"}}, {"train": {}, "eval": {}}))
    with pytest.raises(ConfigError, match=r"rollout\.replay must be an absolute path, got somewhere"):
        config(rollout={"replay": "somewhere"})


def test_the_first_step_that_differs_is_named(tmp_path):
    runs = [recorded(tmp_path / name) for name in "ab"]
    assert first_difference(*runs) is None
    write_metrics(runs[0], [{"step": 1, "loss": 0.25, **GRPO}, {"step": 2, "loss": 0.75, **GRPO}])
    assert first_difference(*runs) == "step 2: loss is 0.75, not 0.5"
    write_metrics(runs[0], [{"step": 1, "loss": 0.25, **GRPO}])
    assert first_difference(*runs) == "1 steps, not 2"
