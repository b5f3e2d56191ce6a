"""Errors of a job that trains a memory are found before its actors start."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.driver.dry_run import dry_run
from pipeline.cli import JobArguments
from pipeline.errors import ConfigError, DataError, ModelError
from tests.support.data import write_jsonl
from tests.support.memories import memory_settings
from tests.support.memory_files import write_memory_run
from tests.support.models import save_tiny_model
from tests.support.recipes import save_recipe


@pytest.fixture
def settings(tmp_path) -> dict[str, Any]:
    (tmp_path / "data").mkdir()
    return memory_settings(save_tiny_model(tmp_path / "model"), tmp_path / "data", "routed")


def check(tmp_path: Path, settings: dict[str, Any], *overrides: str) -> None:
    recipe = save_recipe(tmp_path, settings | {"output": {"root": str(tmp_path / "runs")}})
    dry_run(JobArguments(str(recipe), list(overrides), None, True))


def test_questions_that_name_their_entries_are_valid(tmp_path, settings):
    check(tmp_path, settings)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("exp_*"))  # nothing was started


def test_a_memory_needs_ids(tmp_path, settings):
    with pytest.raises(
        ConfigError, match=r"data\.fields\.id must be set for router stages and memory\.selection=given"
    ):
        check(tmp_path, settings, "data.fields.id=null")


def test_a_row_without_its_entry_is_named_by_its_place(tmp_path, settings):
    file = tmp_path / "data" / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[1]["entry_id"]
    write_jsonl(file, *rows)
    with pytest.raises(DataError, match=r"train\.jsonl line 2: example q1: entry_id must be the line of an entry"):
        check(tmp_path, settings)


def test_sentences_alone_are_too_little_for_a_router(tmp_path, settings):
    write_jsonl(tmp_path / "data" / "knowledge.jsonl", *({"text": f"s{number}"} for number in range(12)))
    with pytest.raises(DataError, match=r"knowledge\.jsonl line 1: subject must be a text"):
        check(tmp_path, settings)


@pytest.mark.parametrize("part", ["router_path", "fusion_path"])
@pytest.mark.parametrize("code", ["true", "false"])
def test_a_file_of_another_backbone_is_refused(tmp_path, settings, part, code):
    run = write_memory_run(tmp_path / "other")
    save_tiny_model(tmp_path / "model", seed=1)
    file = run.final_memory / "memory_step_3.safetensors"
    with pytest.raises(ModelError, match="must be loaded onto the backbone it was trained with"):
        check(tmp_path, settings, f"memory.{part}={file}", f"model.trust_remote_code={code}")


def test_lengths_are_those_of_the_kind_of_stage(tmp_path, settings):
    with pytest.raises(DataError, match=r"fits into router\.max_length=8 .* set router\.too_long=truncate"):
        check(tmp_path, settings, "router.max_length=8")
