"""Strict mode: data that cannot be had stops the run with an error that names it, and nothing is written.

Each case goes through ``prepare_data rate`` and through ``load_table``, by which every training job reads its data.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import constants

from jobs.prepare_data import main
from pipeline.config import DataConfig
from pipeline.data.table import load_table
from pipeline.errors import DataError
from tests.conftest import ROOT
from tests.support.data import write_jsonl, write_parquet
from tests.support.hub import BREAKING_OFF, PROBLEMS, REPOS, UNREACHABLE, running_hub, use_hub

ROWS = [{"question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(20)]


@pytest.fixture(scope="module")
def hub_url() -> Iterator[str]:
    with running_hub() as url:
        yield url


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No signal handlers, and no seconds between the tries of a download."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    no_sleep = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.file_download.time", no_sleep)


def unreachable_hub(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
    use_hub(patch, UNREACHABLE, folder / "home")
    return "tiny/sums"


def offline(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
    use_hub(patch, url, folder / "home")
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return "tiny/sums"


def unknown_name(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
    use_hub(patch, url, folder / "home")
    return "tiny/nothing"


def on_hub(name: str, files: dict[str, str]) -> Callable[[Path, pytest.MonkeyPatch, str], str]:
    def arranged(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
        patch.setitem(REPOS, f"datasets/{name}", files)
        use_hub(patch, url, folder / "home")
        return name

    return arranged


def without(library: str, data: str) -> Callable[[Path, pytest.MonkeyPatch, str], str]:
    def arranged(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
        use_hub(patch, url, folder / "home")
        patch.setitem(sys.modules, library, None)
        return data

    return arranged


def half_a_parquet(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
    file = Path(write_parquet(folder / "half.parquet", {name: [row[name] for row in ROWS] for name in ROWS[0]}))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return str(file)


def half_a_jsonl(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
    file = Path(write_jsonl(folder / "half.jsonl", *ROWS))
    file.write_bytes(file.read_bytes()[:-20])
    return str(file)


def half_the_shards(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
    write_jsonl(folder / "shards" / "train-00000-of-00002.jsonl", *ROWS)
    return str(folder / "shards")


def file_with(text: str) -> Callable[[Path, pytest.MonkeyPatch, str], str]:
    def arranged(folder: Path, patch: pytest.MonkeyPatch, url: str) -> str:
        (folder / "data.jsonl").write_text(text)
        return str(folder / "data.jsonl")

    return arranged


CASES = {
    "library for hub data": (without("datasets", "tiny/sums"), r"tiny/sums.* needs the datasets library"),
    "library of the hub": (without("huggingface_hub", "tiny/sums"), r"tiny/sums.* needs the huggingface_hub library"),
    "library of embedded data": (
        without("reasoning_gym", "embedded:arithmetic"),
        r"embedded:arithmetic needs the reasoning_gym library, which is not installed",
    ),
    "unreachable hub": (unreachable_hub, "tiny/sums cannot be downloaded: the hub cannot be reached"),
    "offline without a cache": (offline, "tiny/sums cannot be downloaded: HF_HUB_OFFLINE is set"),
    "unknown name": (unknown_name, "dataset tiny/nothing cannot be found"),
    "hub data breaks off": (
        on_hub("tiny/breaks", {f"{BREAKING_OFF}.jsonl": PROBLEMS * 50}),
        "tiny/breaks cannot be downloaded whole: peer closed connection",
    ),
    "wrong columns on the hub": (
        on_hub("tiny/columns", {"train.jsonl": '{"q": "1 + 1?", "a": "2"}\n'}),
        "tiny/columns has no field .*: it has q, a",
    ),
    "wrong columns": (file_with('{"q": "1 + 1?", "a": "2"}\n'), "data.jsonl has no field .*: it has q, a"),
    "no answer column": (file_with('{"question": "1 + 1?"}\n'), "data.jsonl has no field (answer|solution)"),
    "empty set": (file_with("\n"), "data.jsonl must have rows, got no rows"),
    "empty set on the hub": (on_hub("tiny/empty", {"train.jsonl": ""}), "tiny/empty"),
    "no usable row": (file_with('{"question": "1 + 1?", "answer": ""}\n'), "data.jsonl must have .*has none"),
    "half a parquet file": (half_a_parquet, r"half.parquet cannot be read"),
    "half a JSONL file": (half_a_jsonl, "half.jsonl line 20 must be a JSON object"),
    "half the shards": (half_the_shards, "must have all its 2 files"),
    "a pointer to the data": (file_with("version https://git-lfs.github.com/spec/v1\n"), "holds no data, only where"),
}
Arrange = Callable[[Path, pytest.MonkeyPatch, str], str]


@pytest.mark.parametrize(("arrange", "message"), CASES.values(), ids=CASES)
def test_nothing_is_rated_or_written(tmp_path, monkeypatch, capsys, hub_url, arrange: Arrange, message):
    (tmp_path / "work").mkdir()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        data = arrange(tmp_path, patch, hub_url)
        main(["rate", "--data", data, "--output", str(tmp_path / "work" / "out")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert left.value.code == 2 and error.startswith("error: ")
    assert re.search(message, error)
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(("arrange", "message"), CASES.values(), ids=CASES)
def test_no_table_is_made(tmp_path, monkeypatch, hub_url, arrange: Arrange, message):
    with monkeypatch.context() as patch, pytest.raises(DataError, match=message) as caught:
        data = arrange(tmp_path, patch, hub_url)
        load_table(DataConfig(name=data), "train", tmp_path / "tables")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "tables").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_what_broke_off_is_not_found_in_the_cache_later(tmp_path, monkeypatch, hub_url):
    name = on_hub("tiny/breaks", {f"{BREAKING_OFF}.jsonl": PROBLEMS * 50})(tmp_path, monkeypatch, hub_url)
    for endpoint, message in ((hub_url, "downloaded whole"), (UNREACHABLE, "it is not in the cache")):
        use_hub(monkeypatch, endpoint, tmp_path / "home")
        with pytest.raises(DataError, match=message):
            load_table(DataConfig(name=name), "train", tmp_path / "tables")


def test_offline_the_cache_is_used_if_the_data_is_in_it(tmp_path, monkeypatch, hub_url, capsys):
    use_hub(monkeypatch, hub_url, tmp_path / "home")
    main(["rate", "--data", "tiny/sums", "--output", str(tmp_path / "online")])
    offline(tmp_path, monkeypatch, hub_url)
    main(["rate", "--data", "tiny/sums", "--output", str(tmp_path / "offline")])
    assert (tmp_path / "offline/train.parquet").read_bytes() == (tmp_path / "online/train.parquet").read_bytes()
    assert [problem.gold for problem in load_table(DataConfig(name="tiny/sums"), "train", tmp_path)] == ["2", "4"]


@pytest.mark.slow  # processes of their own, for these variables are read at import
def test_the_environment_names_the_mirror_and_forbids_the_network(tmp_path, hub_url):
    def rate(output: str, home: str, **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = ["jobs/prepare_data.py", "rate", "--data", "tiny/sums", "--output", str(tmp_path / output)]
        variables = {**os.environ, "HF_HOME": str(tmp_path / home), "PYTHONPATH": str(ROOT), **environment}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120)

    assert rate("online", "home", HF_ENDPOINT=hub_url).returncode == 0
    assert rate("offline", "home", HF_ENDPOINT=hub_url, HF_HUB_OFFLINE="1").returncode == 0
    refused = rate("refused", "empty", HF_ENDPOINT=hub_url, HF_HUB_OFFLINE="1")
    assert refused.returncode == 2 and "tiny/sums cannot be downloaded: HF_HUB_OFFLINE is set" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "empty") == ["home", "offline", "online"]
