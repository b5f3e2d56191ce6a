import importlib.util
import json
import logging
import os
import sqlite3
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrackingConfig, validate_config
from pipeline.errors import ConfigError
from pipeline.runs.metrics_log import MetricsWriter, read_metrics, truncate_metrics
from pipeline.runs.trackers import Point, check_trackers
from pipeline.runs.trackers.backends import BACKENDS, LIBRARIES

MARKER = "5eca7e" * 7
"""Stands for every key. It has 42 characters because some libraries check the length."""
SECRETS = ("WANDB_API_KEY", "SWANLAB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
INSTALLED = [
    pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed"))
    for name in ("wandb", "swanlab", "mlflow")
]


class FakeTracker:
    """Keeps the points it is given; raises from step ``broken_at`` on."""

    def __init__(self, broken_at: int = 1000) -> None:
        self.broken_at = broken_at
        self.num_calls = 0
        self.points: list[Point] = []
        self.is_closed = False

    def log(self, point: Point) -> None:
        self.num_calls += 1
        if point.step >= self.broken_at:
            raise OSError(f"https://me:hidden@example.org/api refused {os.environ['FAKE_API_KEY']}\nsecond line")
        self.points.append(point)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def use_fake(monkeypatch):
    def use(backend: str, fake: FakeTracker) -> FakeTracker:
        monkeypatch.setitem(LIBRARIES, backend, ["json"])
        monkeypatch.setitem(BACKENDS, backend, lambda run: fake)
        return fake

    monkeypatch.setenv("FAKE_API_KEY", MARKER)
    return use


def row(step: int) -> dict[str, Any]:
    return {"step": step, "time": 1.7e9 + step, "stage": "a", "loss": step / 10, "reward/correctness": 1, "kl": None}


def write(run_dir: Path, settings: TrackingConfig, steps: range) -> None:
    writer = MetricsWriter(run_dir, settings)
    for step in steps:
        writer.write(row(step))
    writer.close()


def test_numbers_go_to_trackers_and_everything_to_the_file(tmp_path, use_fake):
    fake = use_fake("wandb", FakeTracker())
    write(tmp_path, TrackingConfig(backends=["wandb"]), range(1, 3))
    assert fake.points == [
        ({"loss": 0.1, "reward/correctness": 1}, 1, 1.7e9 + 1),
        ({"loss": 0.2, "reward/correctness": 1}, 2, 1.7e9 + 2),
    ]
    assert fake.is_closed
    assert read_metrics(tmp_path) == [row(1), row(2)]
    assert not (tmp_path / "metrics" / "tensorboard").exists()


def test_a_tracker_that_fails_is_left_out_with_one_warning_without_secrets(tmp_path, use_fake, caplog):
    broken, sound = use_fake("wandb", FakeTracker(broken_at=2)), use_fake("mlflow", FakeTracker())
    write(tmp_path, TrackingConfig(backends=["wandb", "mlflow"]), range(1, 5))
    assert broken.num_calls == 2
    assert [point.step for point in sound.points] == [1, 2, 3, 4]
    assert len(read_metrics(tmp_path)) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "wandb is off from now on, training continues: OSError: https://example.org/api refused $FAKE_API_KEY"
    ]


def test_a_tracker_that_does_not_start_is_left_out_too(tmp_path, use_fake, monkeypatch, caplog):
    def start(run):
        raise TimeoutError("no answer")

    use_fake("wandb", FakeTracker())
    monkeypatch.setitem(BACKENDS, "wandb", start)
    write(tmp_path, TrackingConfig(backends=["wandb"]), range(1, 3))
    assert len(read_metrics(tmp_path)) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "wandb is off from now on, training continues: TimeoutError: no answer"
    ]


@pytest.mark.parametrize("backend", ["wandb", "swanlab", "mlflow"])
def test_a_missing_library_names_its_extra(monkeypatch, backend):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ConfigError, match=rf'pip install "gradus\[{backend}\]"'):
        check_trackers(TrackingConfig(backends=["tensorboard", backend]))


def test_a_directory_of_the_same_name_is_no_library(monkeypatch, tmp_path):
    (tmp_path / "not_a_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(LIBRARIES, "wandb", ["not_a_library"])
    with pytest.raises(ConfigError, match="wandb needs the not_a_library library"):
        check_trackers(TrackingConfig(backends=["wandb"]))


@pytest.mark.parametrize(
    "uri", [f"https://me:{MARKER}@example.org", f"postgresql://h/db?password={MARKER}", f"http://{MARKER}@["]
)
def test_a_password_in_a_uri_is_refused_and_not_repeated(uri):
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        validate_config({"stages": [{"name": "a", "kind": "sft"}], "tracking": {"online": True, "mlflow_uri": uri}})
    assert MARKER not in str(caught.value)


def test_a_server_needs_online():
    settings = {"stages": [{"name": "a", "kind": "sft"}], "tracking": {"mlflow_uri": "https://example.org"}}
    with pytest.raises(ConfigError, match=r"tracking\.online must be true"):
        validate_config(settings)


def logged_steps(backend: str, run_dir: Path) -> list[int]:
    """Steps of ``loss`` that the library wrote, in its newest directory if it makes one per attempt."""
    metrics = run_dir / "metrics"
    if backend == "wandb":
        return wandb_steps(metrics)
    if backend == "swanlab":
        return swanlab_steps(metrics)
    with sqlite3.connect(metrics / "mlflow" / "mlflow.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)
        return [step for (step,) in database.execute("select step from metrics where key = 'loss' order by step")]


def wandb_steps(metrics: Path) -> list[int]:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (metrics / "wandb" / "latest-run").glob("*.wandb")
    steps = []
    for record in map(Record.FromString, leveldb_records(path)):
        if record.HasField("history"):
            values = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            assert json.loads(values["loss"]) == record.history.step.num / 10
            assert "reward/correctness" in values and "stage" not in values
            steps.append(record.history.step.num)
    return steps


def swanlab_steps(metrics: Path) -> list[int]:
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    path = max((metrics / "swanlab").glob("run-*/*.swanlab"))
    scalars = [record.scalar for record in map(Record.FromString, leveldb_records(path)) if record.HasField("scalar")]
    assert {scalar.key for scalar in scalars} == {"loss", "reward/correctness"}
    return [scalar.step for scalar in scalars if scalar.key == "loss"]


def leveldb_records(path: Path) -> Iterator[bytes]:
    """Records in LevelDB's log format, after a header of 7 bytes. One block, of 32 KiB, is enough here."""
    data, start = path.read_bytes(), 7
    assert len(data) < 2**15
    while start < len(data):
        (size,) = struct.unpack_from("<H", data, start + 4)
        yield data[start + 7 : start + 7 + size]
        start += 7 + size


@pytest.fixture
def secret_environment(monkeypatch, tmp_path):
    for name in SECRETS:
        monkeypatch.setenv(name, MARKER)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", INSTALLED)
def test_a_resumed_run_is_whole_offline_and_holds_no_key(backend, tmp_path, secret_environment, capfd, caplog):
    """Steps 1 to 5, back to 3, 4 to 6, in a thread as in Ray Train."""
    caplog.set_level(logging.DEBUG)
    run_dir = tmp_path / "exp_1"
    run_dir.mkdir()
    config = {"seed": 1, "model": {"name": "m", "lora": None}, "stages": [{"name": "a"}]}
    (run_dir / "experiment_config.json").write_text(json.dumps(config))
    settings = TrackingConfig(backends=[backend])

    def train() -> None:
        write(run_dir, settings, range(1, 6))
        truncate_metrics(run_dir, 3)
        write(run_dir, settings, range(4, 7))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()

    assert len(read_metrics(run_dir)) == 6
    assert logged_steps(backend, run_dir) == [1, 2, 3, 4, 5, 6]
    assert "is off from now on" not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if MARKER.encode() in path.read_bytes()]
    assert not [path for path in files if not path.is_relative_to(run_dir) and "home" not in path.parts]
    output = capfd.readouterr()
    assert MARKER not in output.out + output.err + caplog.text
