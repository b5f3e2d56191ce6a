"""Models from a hub, which is a local server, and from directories."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.models import hub
from pipeline.models.hub import check_model, local_files, model_files, pinned_model, resolve_model
from tests.conftest import ROOT
from tests.support.hub import SHA, UNREACHABLE, running_hub, use_hub
from tests.support.models import save_tiny_model


@pytest.fixture(scope="module")
def hub_url() -> Iterator[str]:
    with running_hub() as url:
        yield url


def file_names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_hub_model_is_downloaded_without_pickles_or_code_and_found_again_offline(hub_url, tmp_path, monkeypatch):
    use_hub(monkeypatch, hub_url, tmp_path)
    config = ModelConfig(name="tiny/safe")
    assert file_names(resolve_model(config)) == ["config.json", "model.safetensors"]
    use_hub(monkeypatch, UNREACHABLE, tmp_path)
    assert file_names(resolve_model(config)) == ["config.json", "model.safetensors"]
    assert "in cache" in check_model(config)


@pytest.mark.slow  # a process that imports all libraries
def test_model_and_data_come_from_the_mirror_that_the_environment_names(hub_url, tmp_path):
    """In a process of its own, for HF_ENDPOINT is read at import."""
    code = (
        "from pipeline.config import *; from pipeline.data import *; from pipeline.models.hub import *\n"
        "print(sorted(file.name for file in resolve_model(ModelConfig(name='tiny/safe')).iterdir()))\n"
        "print([p.gold for p in load_problems(DataConfig(name='tiny/sums', train_split='train[1:]'), 'train')])"
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "HF_ENDPOINT": hub_url, "HF_HOME": str(tmp_path), "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == "['config.json', 'model.safetensors']\n['4']\n", done.stderr
    assert (tmp_path / "hub").is_dir() and (tmp_path / "datasets").is_dir()


@pytest.mark.parametrize(
    ("name", "endpoint", "message"),
    [
        ("tiny/pickled", None, "must have *.safetensors weights"),
        ("tiny/none", None, "cannot be found"),
        ("no spaces", None, "cannot be found"),
        ("tiny/safe", UNREACHABLE, "hub cannot be reached and it is not in the cache"),
    ],
)
@pytest.mark.parametrize("function", [check_model, resolve_model])
def test_an_unusable_hub_model_is_a_one_line_error(
    name: str,
    endpoint: str | None,
    message: str,
    function: Callable[[ModelConfig], object],
    hub_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    use_hub(monkeypatch, endpoint or hub_url, tmp_path)
    with pytest.raises(ModelError) as caught:
        function(ModelConfig(name=name))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unreachable_hub_is_one_line_in_the_log(tmp_path, monkeypatch, caplog):
    use_hub(monkeypatch, UNREACHABLE, tmp_path)
    with pytest.raises(ModelError):
        check_model(ModelConfig(name="tiny/safe"))
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith(f"{UNREACHABLE} cannot be reached: ")
    assert "\n" not in record.getMessage()


def test_a_hub_model_is_checked_without_downloading(hub_url, tmp_path, monkeypatch):
    use_hub(monkeypatch, hub_url, tmp_path)
    assert check_model(ModelConfig(name="tiny/safe")) == f"tiny/safe on the Hugging Face hub, revision {SHA}"
    assert not list(tmp_path.rglob("config.json"))


def test_a_local_model_needs_a_config_and_safetensors(tmp_path):
    config = ModelConfig(name=str(tmp_path))
    with pytest.raises(ModelError, match=r"must have a config\.json"):
        resolve_model(config)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="safetensors"):
        check_model(config)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert resolve_model(config) == tmp_path
    assert check_model(config) == f"local directory {tmp_path}"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere-at-all", "output/experiments/none/final_model"])
def test_a_missing_model_directory_is_named(name):
    with pytest.raises(ModelError, match=f"model directory {name} does not exist"):
        resolve_model(ModelConfig(name=name))


def test_an_unknown_embedded_model_is_answered_with_the_known_one():
    with pytest.raises(ModelError, match="embedded:smollm2-135m-instruct"):
        check_model(ModelConfig(name="embedded:llama"))


def test_only_whole_models_on_this_machine_can_be_checked_without_a_download(hub_url, tmp_path, monkeypatch):
    assert local_files(ModelConfig(name=str(save_tiny_model(tmp_path / "tiny")))) == tmp_path / "tiny"
    use_hub(monkeypatch, hub_url, tmp_path)
    assert local_files(ModelConfig(name="tiny/safe")) is None
    resolve_model(ModelConfig(name="tiny/safe"))
    assert local_files(ModelConfig(name="tiny/safe")) is None  # it has no tokenizer


def test_a_branch_becomes_the_commit_that_it_stands_for_online_and_offline(hub_url, tmp_path, monkeypatch):
    use_hub(monkeypatch, hub_url, tmp_path)
    pinned = pinned_model(ModelConfig(name="tiny/safe", revision="main"))
    assert pinned.revision == SHA and resolve_model(pinned).name == SHA
    resolve_model(ModelConfig(name="tiny/safe"))  # the cache now knows the default branch
    use_hub(monkeypatch, UNREACHABLE, tmp_path)
    assert pinned_model(ModelConfig(name="tiny/safe")).revision == SHA
    assert resolve_model(pinned).name == SHA


def test_only_branches_and_tags_of_the_hub_are_pinned(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "hub_info", lambda *_: pytest.fail("asked the hub"))
    local = save_tiny_model(tmp_path)
    for settings in (
        {"name": "embedded:smollm2-135m-instruct"},
        {"name": str(local)},
        {"name": "tiny/safe", "revision": SHA},
        {"name": "tiny/safe", "hub": "modelscope"},
    ):
        config = ModelConfig.model_validate(settings)
        assert pinned_model(config) is config


def test_the_files_that_a_model_is_loaded_from_are_digested_by_name(tmp_path):
    model = save_tiny_model(tmp_path / "model")
    (model / "README.md").write_text("no part of it")
    before = model_files(model)
    assert "model.safetensors" in before and "tokenizer.json" in before and "README.md" not in before
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    after = model_files(model)
    assert [name for name in before if before[name] != after[name]] == ["config.json"]
