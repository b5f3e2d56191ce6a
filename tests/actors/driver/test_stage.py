"""A stage whose workers fail: when they are restarted, and the error it ends with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import TrainingFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from actors.driver import stage
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


# Restarts ----------------------------------------------------------------------------------------


def failure(cause: Exception) -> TrainingFailedError:
    return WorkerGroupError("a worker failed", {0: SimpleNamespace(cause=cause)})


class Attempts:
    """Stands for Ray Train: each attempt reaches a step, and then fails or ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *attempts: tuple[int, Exception | None]) -> None:
        self.remaining, self.step = list(attempts), 0
        checkpoints = SimpleNamespace(latest_progress=lambda: self.step)
        config = SimpleNamespace(learner=SimpleNamespace(max_failures=2))
        monkeypatch.setattr(stage, "RunDirectory", lambda path: SimpleNamespace(checkpoints=checkpoints))
        self.setup: Any = SimpleNamespace(
            stage=SimpleNamespace(name="rl"),
            run_path=Path("/runs/exp_1"),
            config=config,
        )

    def train(self, setup: Any) -> None:
        self.step, error = self.remaining.pop(0)
        if error:
            raise error


LOST = failure(ClusterError("an engine failed"))


def test_failures_count_only_without_progress_in_between(monkeypatch, capsys):
    attempts = Attempts(monkeypatch, (5, LOST), (5, LOST), (10, LOST), (10, LOST), (20, None))
    stage.fit_stage(attempts.setup, attempts.train)
    assert attempts.remaining == []
    assert "Restart 2 of 2." in capsys.readouterr().out


def test_a_stage_that_gets_nowhere_ends_with_its_error(monkeypatch):
    attempts = Attempts(monkeypatch, (5, LOST), (5, LOST), (5, LOST), (20, None))
    with pytest.raises(ClusterError, match="stage rl failed: an engine failed"):
        stage.fit_stage(attempts.setup, attempts.train)
    assert len(attempts.remaining) == 1


def test_a_certain_error_is_not_tried_again(monkeypatch):
    error = RewardError("reward 'x' must return finite values")
    attempts = Attempts(monkeypatch, (5, failure(error)), (20, None))
    with pytest.raises(RewardError) as caught:
        stage.fit_stage(attempts.setup, attempts.train)
    assert caught.value is error and len(attempts.remaining) == 1
