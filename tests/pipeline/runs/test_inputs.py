"""Inputs of a run, and their differences when it is resumed."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, validate_config
from pipeline.runs.inputs import Inputs
from tests.support.loops import write_splits
from tests.support.models import save_tiny_model


def config(data: Path, **sections: Any) -> Config:
    settings = {"data": {"name": str(data)}, "stages": [{"name": "a", "kind": "sft"}]}
    return validate_config({**settings, **sections})


@pytest.fixture
def place(tmp_path) -> Path:
    save_tiny_model(tmp_path / "model")
    write_splits(tmp_path / "data", [{"question": "1 + 1?", "answer": "2"}])
    return tmp_path


def inputs(place: Path, *configs: Config) -> Inputs:
    configs = configs or (config(place / "data"),)
    return Inputs.of(configs[0].model, place / "model", configs)


def test_they_are_read_as_they_were_written(place):
    before = inputs(place)
    assert Inputs.read(place) is None
    before.write(place)
    read = Inputs.read(place)
    assert read == before and not before.differences(inputs(place))
    assert set(before.model) == {"name", "hub", "revision", "files"}


def test_files_of_frozen_models_are_compared_if_they_are_known(place):
    save_tiny_model(place / "solver")
    settings = config(place / "data")
    before = Inputs.of(settings.model, place / "model", [settings], {"solver": place / "solver"})
    before.write(place)
    (place / "solver" / "tokenizer_config.json").write_text("{}")
    now = Inputs.of(settings.model, place / "model", [settings], {"solver": place / "solver"})
    assert [line.partition(": was")[0] for line in before.differences(now)] == ["solver file tokenizer_config.json"]
    assert Inputs.read(place) == before
    assert not inputs(place).differences(now) and not before.differences(inputs(place))


def test_every_changed_file_and_split_is_named(place):
    before = inputs(place)
    (place / "model" / "tokenizer_config.json").write_text("{}")
    (place / "model" / "generation_config.json").unlink()
    (place / "data" / "train.jsonl").write_text('{"question": "1 + 1?", "answer": "3"}\n')
    starts = ["model file generation_config.json: was ", "model file tokenizer_config.json: was "]
    starts.append(f"train data {place / 'data'}, train: was ")
    lines = before.differences(inputs(place))
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 3
    assert lines[0].endswith("is missing")


def test_data_that_was_moved_is_the_same(place):
    before = inputs(place)
    (place / "data").rename(place / "moved")
    assert not before.differences(inputs(place, config(place / "moved")))


def test_held_out_data_counts_while_it_is_used(place):
    before, off = inputs(place), config(place / "data", eval={"problems_per_level": 0})
    (place / "data" / "test.jsonl").write_text('{"question": "1 + 1?", "answer": "3"}\n')
    (line,) = before.differences(inputs(place))
    assert line.startswith(f"eval data {place / 'data'}, test: was ")
    assert not before.differences(inputs(place, off)) and not inputs(place, off).differences(before)


def test_a_search_may_get_more_data_but_not_other_data(place):
    write_splits(place / "more", [{"question": "2 + 2?", "answer": "4"}])
    one, two = config(place / "data"), config(place / "more")
    assert not inputs(place, one).differences(inputs(place, one, two))
    assert len(inputs(place, one, two).differences(inputs(place, one))) == 2  # train and eval
