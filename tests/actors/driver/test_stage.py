"""The error of a stage whose workers failed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.driver.stage import _stage_error
from pipeline.errors import ClusterError, GradusError, RewardError


def stage_error(*causes: Exception) -> GradusError:
    setup: Any = SimpleNamespace(stage=SimpleNamespace(name="rl"), run_path=Path("/runs/exp_1"))
    failures = {rank: SimpleNamespace(cause=cause) for rank, cause in enumerate(causes)}
    error = RuntimeError("the group failed")
    error.worker_failures = failures  # type: ignore[attr-defined]
    return _stage_error(setup, error)


def test_a_user_error_in_any_worker_is_the_error_of_the_stage():
    error = RewardError("unknown reward 'corectness'")
    assert stage_error(KeyError("kv"), error) is error


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (KeyError("kv"), "KeyError: 'kv'"),
        (ClusterError("an engine failed: ValueError: no blocks"), "an engine failed: ValueError: no blocks"),
    ],
    ids=["bug", "actor"],
)
def test_any_other_error_names_the_stage_and_the_logs(cause, reason):
    assert str(stage_error(cause)) == (
        f"stage rl failed: {reason}. The full traceback is in /runs/exp_1/logs; --resume continues from the last "
        "checkpoint."
    )
