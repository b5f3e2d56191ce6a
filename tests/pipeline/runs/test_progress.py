import os
import pty
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runs.eta import PlannedStage
from pipeline.runs.metrics_log import MetricsWriter, truncate_metrics
from pipeline.runs.progress import follow_progress
from tests.support.runs import write_metrics

SFT, GRPO = PlannedStage("warmup", "sft", 2), PlannedStage("sums", "grpo", 4)


class Follower:
    """follow_progress in a thread, as the driver runs it."""

    def __init__(self, run_dir: Path, *stages: PlannedStage, stalled_s: float = 600.0) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(target=follow_progress, args=(run_dir, stages, self.stop, 0.01, stalled_s))
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


class Terminal:
    """A pseudo-terminal. All that is written to it is read at once, so that no writer ever waits."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.file = os.fdopen(slave, "w")
        self._shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._shown += os.read(self._master, 65536)
            except OSError:  # the other end is closed, and nothing is left to read
                return

    def close(self) -> str:
        """All that was shown."""
        self.file.close()
        self._reader.join(60)
        assert not self._reader.is_alive()
        os.close(self._master)
        return self._shown.decode()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def printed_lines(capsys) -> Callable[[], list[str]]:
    """A function that gives all lines so far."""
    lines: list[str] = []

    def read() -> list[str]:
        lines.extend(capsys.readouterr().out.splitlines())
        return lines

    return read


def sft(step: int, at: float, **values) -> dict:
    return {"step": step, "stage": "warmup", "kind": "sft", "stage_step": step, "time": at, "step_s": 10.0, **values}


def grpo(step: int, at: float, stage_step: int | None = None, **values) -> dict:
    stage = {"stage": "sums", "kind": "grpo", "stage_step": stage_step or step}
    return {"step": step, **stage, "time": at, "step_s": 30.0, **values}


def test_progress_prints_a_line_per_step_through_a_cut_and_a_restart(tmp_path, capsys):
    lines = printed_lines(capsys)
    follower = Follower(tmp_path, GRPO)  # no file yet
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(grpo(step, at=step))
        wait_for(lambda step=step: len(lines()) == step)
    writer.close()
    truncate_metrics(tmp_path, 1)
    writer = MetricsWriter(tmp_path)
    writer.write(grpo(2, at=20))
    writer.close()
    wait_for(lambda: len(lines()) == 4)
    follower.close()
    assert [line.split("  ")[0] for line in lines()] == ["step 1/4", "step 2/4", "step 3/4", "step 2/4"]


def test_a_run_in_which_no_step_ends_says_so_again_and_again(tmp_path, capsys):
    lines = printed_lines(capsys)
    follower = Follower(tmp_path, GRPO, stalled_s=0.1)
    wait_for(lambda: len(lines()) >= 2)
    follower.close()
    line = f"no step has ended for 0 min; what each process does is in {tmp_path}/logs"
    assert lines()[:2] == [line, line]


def test_supervised_fine_tuning_shows_loss_accuracy_and_rate(tmp_path, capsys):
    write_metrics(tmp_path, [sft(1, at=1, loss=0.5, token_accuracy=0.8125, learner_tokens_per_s=430.4)])
    Follower(tmp_path, SFT, GRPO).close()
    expected = "step 1/6  warmup  ETA 0:00:10 + grpo  loss 0.5000  accuracy 81.2%  430 tokens/s\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("values", "shown"), [({"num_skipped_updates": 0}, ""), ({"num_skipped_updates": 2}, "  2 updates skipped")]
)
def test_skipped_updates_are_shown(tmp_path, capsys, values, shown):
    write_metrics(tmp_path, [sft(1, at=1, loss=None, **values)])
    Follower(tmp_path, SFT).close()
    assert capsys.readouterr().out == f"step 1/2  warmup  ETA 0:00:10{shown}\n"


@pytest.mark.parametrize(("kl", "shown"), [(0.0, ""), (0.0125, "  KL 0.0125")])
def test_grpo_shows_reward_share_correct_length_and_kl_but_no_loss(tmp_path, capsys, kl, shown):
    values = {"loss": 0.0, "reward_mean": 1.25, "correct_frac": 0.375, "completion_length_mean": 37.6, "kl": kl}
    write_metrics(tmp_path, [grpo(1, at=1, **values)])
    Follower(tmp_path, GRPO).close()
    expected = f"step 1/4  sums  ETA 0:01:30  reward 1.250  correct 37.5%  length 38{shown}\n"
    assert capsys.readouterr().out == expected


def test_a_resumed_run_is_summed_up_by_its_last_step(tmp_path, capsys):
    write_metrics(tmp_path, [grpo(step, at=step) for step in (1, 2, 3)])
    Follower(tmp_path, GRPO).close()
    assert capsys.readouterr().out == "step 3/4  sums  ETA 0:00:30\n"


def test_downtime_is_not_counted_as_an_evaluation(tmp_path, capsys):
    """The run was stopped for a day after its first stage. Then a step of 30 s starts 40 s after the one before."""
    day, stages = 86400, (SFT._replace(num_evals=1), GRPO._replace(num_evals=1))
    write_metrics(tmp_path, [sft(1, at=10), sft(2, at=20)])
    lines = printed_lines(capsys)
    follower = Follower(tmp_path, *stages)
    wait_for(lambda: len(lines()) == 1)
    writer = MetricsWriter(tmp_path)
    writer.write(grpo(3, at=day, stage_step=1))
    writer.write(grpo(4, at=day + 70, stage_step=2, eval_answer_accuracy=0.5))
    writer.close()
    follower.close()
    etas = [line.split("  ")[2] for line in lines()]
    assert etas == ["ETA 0:00:00 + grpo", "ETA 0:01:30 + evals", "ETA 0:01:00"]


def test_progress_survives_garbage(tmp_path, capsys):
    path = write_metrics(tmp_path, [{"step": 1, "kind": "sft", "loss": None}])
    path.write_bytes(path.read_bytes() + b'\xff\n[]\n{"step": "x"}\n{"step": 2, "loss": "high"}\n{"ste')
    Follower(tmp_path).close()
    assert capsys.readouterr().out == "step 2/0  \n"


def test_a_broken_display_does_not_reach_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdout", None)
    follow_progress(tmp_path, [GRPO], threading.Event())
    assert "the run continues" in caplog.text


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (
            sft(1, at=1, loss=0.5, token_accuracy=0.8125, learner_tokens_per_s=430.4),
            ["warmup", "1/6", "ETA 0:00:10 + grpo", "loss 0.5000", "accuracy 81.2%", "430 tokens/s"],
        ),
        (
            grpo(3, at=3, stage_step=1, reward_mean=1.25, correct_frac=0.375, completion_length_mean=38.0, kl=0.0125),
            ["sums", "3/6", "ETA 0:01:30", "reward 1.250", "correct 37.5%", "length 38", "KL 0.0125"],
        ),
    ],
)
def test_a_terminal_of_80_columns_gets_one_live_line(tmp_path, monkeypatch, row, shown):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    write_metrics(tmp_path, [row])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal.file)
    Follower(tmp_path, SFT, GRPO).close()
    output = terminal.close()
    assert all(text in output for text in shown)
