import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CheckpointError
from pipeline.files import append_jsonl
from pipeline.runs import metrics_log
from pipeline.runs.metrics_log import (
    MetricsWriter,
    metrics_path,
    read_metrics,
    truncate_metrics,
    truncate_ungraded,
    ungraded_path,
)
from tests.support.runs import write_metrics


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


def test_rows_are_on_the_disk_after_a_sync(tmp_path, monkeypatch):
    writer = MetricsWriter(tmp_path)
    writer.write({"step": 1})
    synced: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
        writer.sync()
    writer.close()
    assert synced == [metrics_path(tmp_path).stat().st_ino]


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
    path = write_metrics(tmp_path, [{"step": 1}])
    path.write_text(path.read_text() + line + "\n" + '{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 2"):
        read_metrics(tmp_path)


def test_cutting_back_drops_later_rows_and_returns_their_number(tmp_path):
    write_steps(tmp_path, range(1, 6))
    assert truncate_metrics(tmp_path, 3) == 2
    assert steps(tmp_path) == [1, 2, 3]
    assert [path.name for path in metrics_path(tmp_path).parent.glob("*.jsonl*")] == ["metrics.jsonl"]


def test_a_writer_cuts_back_to_a_step_in_one_pass(tmp_path, monkeypatch):
    write_steps(tmp_path, range(1, 6))
    cuts: list[float] = []

    def truncate(run_dir: Path, last_step: float) -> int:
        cuts.append(last_step)
        return truncate_metrics(run_dir, last_step)

    monkeypatch.setattr(metrics_log, "truncate_metrics", truncate)
    MetricsWriter(tmp_path, last_step=3).close()
    assert steps(tmp_path) == [1, 2, 3] and cuts == [3]


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


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 30), unique=True, max_size=8).map(sorted), st.integers(0, 400), st.integers(0, 30))
def test_a_file_cut_short_anywhere_and_cut_back_anywhere_continues_intact(written, num_bytes, last_step):
    with tempfile.TemporaryDirectory() as directory:
        run_dir = Path(directory)
        path = write_metrics(run_dir, [{"step": step, "text": "√2 }"} for step in written])
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines)[:num_bytes])
        readable = steps(run_dir)
        assert readable == written[: len(readable)]
        num_whole = sum(len(b"".join(lines[: index + 1]).rstrip()) <= num_bytes for index in range(len(lines)))
        assert len(readable) == num_whole
        kept = [step for step in readable if step <= last_step]
        assert truncate_metrics(run_dir, last_step) == len(readable) - len(kept)
        assert path.read_bytes() == b"".join(lines[: len(kept)])
        assert truncate_metrics(run_dir, last_step) == 0
        append_jsonl(path, [{"step": 31}])
        assert steps(run_dir) == [*kept, 31]
