import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import validate_config
from pipeline.errors import CheckpointError
from pipeline.files import write_jsonl
from pipeline.runs.checkpoints import WRITTEN, read_written
from pipeline.runs.records import number, read_config, read_evaluations, read_jsonl, stage_settings
from tests.support.runs import make_run


@pytest.mark.parametrize(("value", "expected"), [(3, 3), (0.5, 0.5), (True, None), ("3", None), (None, None)])
def test_a_number_is_an_integer_or_a_float(value, expected):
    assert number({"x": value}, "x") == expected
    assert number({}, "x") is None


def test_nan_and_infinity_are_no_numbers():
    assert number({"x": float("nan"), "y": float("inf")}, "x") is None
    assert number({"x": float("nan"), "y": float("inf")}, "y") is None


BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""Where ``str.splitlines`` ends a line. JSON escapes those below U+0020 only."""


@given(st.lists(st.text(st.one_of(st.sampled_from(BREAKS), st.characters(exclude_categories=["Cs"]))), max_size=4))
def test_rows_are_read_as_they_were_written_whatever_separators_their_texts_have(texts):
    rows = [{"statement": f"{text}{BREAKS}"} for text in texts]
    with tempfile.TemporaryDirectory() as directory:
        write_jsonl(Path(directory) / WRITTEN, rows)
        assert read_written(Path(directory)) == rows == read_jsonl(Path(directory) / WRITTEN)


def test_missing_files_are_empty(tmp_path):
    assert read_jsonl(tmp_path / "a.jsonl") == []
    assert read_config(tmp_path) == {}


def test_a_broken_configuration_is_named(tmp_path):
    (tmp_path / "experiment_config.json").write_text('{"seed": ')
    with pytest.raises(CheckpointError, match=r"experiment_config\.json must be JSON"):
        read_config(tmp_path)


def test_settings_of_a_stage_are_its_own_over_those_of_its_kind():
    stages = [{"name": "a", "settings": {"mu": 2}}, {"name": "a_b", "each_level": True, "settings": {"mu": 3}}]
    config = {"grpo": {"mu": 1, "beta": 0.5}, "stages": stages}
    assert stage_settings(config, "grpo", "a") == {"mu": 2, "beta": 0.5}
    assert stage_settings(config, "grpo", "a_b_level1-again2")["mu"] == 3
    assert stage_settings(config, "grpo", "a_c")["mu"] == 1
    assert stage_settings({}, "grpo", "a") == {}


def test_an_algorithm_of_a_stage_sets_what_the_learner_trains_with():
    recorded = {"algorithm": "dapo", "beta": 0.5}
    config = validate_config({"grpo": {"mu": 2}, "stages": [{"name": "a", "kind": "grpo", "settings": recorded}]})
    found = stage_settings(config.model_dump(), "grpo", "a")
    assert found == config.stage_settings(config.stages[0]).model_dump()
    assert (found["mu"], found["beta"], found["overlong_buffer_frac"]) == (2, 0.5, 0.2)


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
