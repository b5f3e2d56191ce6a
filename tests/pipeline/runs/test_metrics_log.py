import json
import os
import pty
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from pipeline.files import append_jsonl
from pipeline.runs.metrics_log import (
    MetricsWriter,
    metrics_path,
    read_evaluations,
    read_metrics,
    truncate_metrics,
    truncate_ungraded,
    ungraded_path,
)
from pipeline.runs.progress import follow_progress
from tests.support.runs import make_run, write_rows


def steps(run_dir: Path) -> list[int]:
    return [row["step"] for row in read_metrics(run_dir)]


def write_steps(run_dir: Path, numbers) -> None:
    writer = MetricsWriter(run_dir)
    for step in numbers:
        writer.write({"step": step, "stage": "a", "kind": "sft", "loss": step / 10, "time": 1e9 + step})
    writer.close()


def tensorboard_steps(run_dir: Path) -> list[int]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = accumulator.EventAccumulator(str(run_dir / "metrics" / "tensorboard"))
    board.Reload()
    return [event.step for event in board.Scalars("loss")]


def test_what_is_written_is_read_back(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write({"step": 1, "stage": "a", "loss": 0.5, "reward/format": 1})
    assert read_metrics(tmp_path) == [{"step": 1, "stage": "a", "loss": 0.5, "reward/format": 1}]  # before close
    writer.close()


def test_nan_and_infinity_become_null(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write({"step": 1, "loss": float("nan"), "kl": float("-inf")})
    writer.close()
    assert metrics_path(tmp_path).read_text() == '{"step": 1, "loss": null, "kl": null}\n'


def test_no_file_means_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []
    assert truncate_metrics(tmp_path, 3) == 0


@pytest.mark.parametrize("half", [b'{"step": 3, "lo', b'{"step": 3, "x": "\xc3', b'{"step"', b"4"])
def test_a_half_written_last_line_is_left_out_and_never_glued_to_the_next(tmp_path, half):
    write_steps(tmp_path, [1, 2])
    with metrics_path(tmp_path).open("ab") as file:
        file.write(half)
    assert steps(tmp_path) == [1, 2]
    write_steps(tmp_path, [3])
    assert steps(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("line", ["garbage", '{"step": 2', "[1]", "", '{"stage": "a"}', '{"step": "2"}'])
def test_a_corrupt_line_is_named(tmp_path, line):
    path = write_rows(tmp_path, [{"step": 1}])
    path.write_text(path.read_text() + line + "\n" + '{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 2"):
        read_metrics(tmp_path)


def test_cutting_back_drops_later_rows_and_tells_how_many(tmp_path):
    write_steps(tmp_path, range(1, 6))
    assert truncate_metrics(tmp_path, 3) == 2
    assert steps(tmp_path) == [1, 2, 3]
    assert [path.name for path in metrics_path(tmp_path).parent.glob("*.jsonl*")] == ["metrics.jsonl"]


def test_ungraded_examples_are_cut_back_like_metrics(tmp_path):
    path = ungraded_path(tmp_path)
    assert truncate_ungraded(tmp_path, 3) == 0 and not path.exists()
    path.parent.mkdir()
    append_jsonl(path, [{"step": 2, "completion": "√2 \ud800"}, {"step": 2}, {"step": 3}])
    kept = path.read_bytes()
    append_jsonl(path, [{"step": 4}, {"step": 5}])
    with path.open("a") as file:
        file.write('{"step": 6, "comp')
    assert truncate_ungraded(tmp_path, 3) == 2
    assert path.read_bytes() == kept
    assert json.loads(kept.split(b"\n")[0])["completion"] == "√2 ?"
    assert truncate_ungraded(tmp_path, 0) == 3 and path.read_bytes() == b""


def test_tensorboard_forgets_the_steps_that_are_repeated(tmp_path):
    write_steps(tmp_path, range(1, 6))
    truncate_metrics(tmp_path, 3)
    write_steps(tmp_path, [4])
    assert tensorboard_steps(tmp_path) == [1, 2, 3, 4]


def test_evaluations_come_by_step_with_before_first(tmp_path):
    names = [evaluation["name"] for evaluation in read_evaluations(make_run(tmp_path))]
    assert names == ["before", "sft-warmup", "grpo-sums"]


def test_levels_come_in_natural_order(tmp_path):
    (tmp_path / "eval").mkdir()
    levels: dict[str, dict] = {"10": {}, "9": {}}
    (tmp_path / "eval" / "a.json").write_text(json.dumps({"name": "a", "step": 1, "levels": levels, "overall": {}}))
    assert list(read_evaluations(tmp_path)[0]["levels"]) == ["9", "10"]


def test_a_corrupt_evaluation_is_named(tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "before.json").write_text('{"name": "before"')
    with pytest.raises(CheckpointError, match=r"before\.json"):
        read_evaluations(tmp_path)


class Follower:
    """follow_progress in a thread, as the driver runs it."""

    def __init__(self, run_dir: Path, total_steps: int) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(target=follow_progress, args=(run_dir, total_steps, self.stop, 0.01))
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def row(step: int, at: float, **values) -> dict:
    return {"step": step, "stage": "a", "time": at, "step_s": 10.0, **values}


def test_progress_prints_a_line_per_step_through_a_cut_and_a_restart(tmp_path, capsys):
    printed: list[str] = []

    def lines() -> list[str]:
        printed.extend(capsys.readouterr().out.splitlines())
        return printed

    follower = Follower(tmp_path, total_steps=4)  # no file yet
    time.sleep(0.05)
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(row(step, at=step, loss=0.5, reward_mean=1.25))
        wait_for(lambda step=step: len(lines()) == step)
    writer.close()
    truncate_metrics(tmp_path, 1)
    writer = MetricsWriter(tmp_path)
    writer.write(row(2, at=20))
    writer.close()
    wait_for(lambda: len(lines()) == 4)
    follower.close()
    assert printed[0] == "step 1/4  a  loss 0.5000  reward 1.250  ETA 0:00:30"
    assert [line.split("  ")[0] for line in printed] == ["step 1/4", "step 2/4", "step 3/4", "step 2/4"]


def test_a_resumed_run_is_summed_up_by_its_last_step(tmp_path, capsys):
    write_rows(tmp_path, [row(step, at=step) for step in (1, 2, 3)])
    Follower(tmp_path, total_steps=4).close()
    assert capsys.readouterr().out == "step 3/4  a  ETA 0:00:10\n"


def test_progress_survives_garbage(tmp_path, capsys):
    path = write_rows(tmp_path, [row(1, at=1, loss=None)])
    path.write_bytes(path.read_bytes() + b'\xff\n[]\n{"step": "x"}\n{"step": 2, "loss": "high"}\n{"ste')
    follower = Follower(tmp_path, total_steps=0)
    wait_for(lambda: "step 2/0" in capsys.readouterr().out)
    follower.close()


def test_a_broken_display_does_not_reach_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdout", None)
    follow_progress(tmp_path, 3, threading.Event())
    assert "the run goes on" in caplog.text


def test_a_terminal_gets_one_live_line(tmp_path, monkeypatch):
    master, slave = pty.openpty()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    write_rows(tmp_path, [row(1, at=1, loss=0.5, learner_tokens_per_s=430.0)])
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        Follower(tmp_path, total_steps=4).close()
        shown = os.read(master, 65536).decode()
    assert all(text in shown for text in ("1/4", "loss 0.5000", "tokens/s 430", "ETA 0:00:30"))
