"""The proof that no test problem is among the problems that are kept."""

import pytest

from pipeline.config.evaluation import EvaluationConfig
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.registry import DATA_SETS
from pipeline.questions.contamination import TestSets, load_test_sets, proof
from pipeline.questions.filters import Similar
from tests.support.data import write_jsonl
from tests.support.evaluations import evaluation_config

JARS = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"
MORE_JARS = JARS.replace("11", "20")


@pytest.fixture
def two_sets(monkeypatch):
    registered = {name: DATA_SETS[name] for name in ("gsm8k", "combibench", "embedded:operations")}
    monkeypatch.setattr("pipeline.questions.contamination.DATA_SETS", registered)


def reading(tmp_path) -> EvaluationConfig:
    return evaluation_config(data_root=str(tmp_path))


def test_what_this_machine_has_is_compared_and_the_rest_is_named(tmp_path, two_sets):
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl", {"question": JARS, "answer": "so #### 55"})
    found = load_test_sets(reading(tmp_path), near=0.8, allow_missing=["combibench"])
    assert found.sizes == {"gsm8k": 1, "embedded:operations": 892}
    assert list(found.missing) == ["combibench"] and "combibench" in found.missing["combibench"]
    assert found.texts["gsm8k"].find(MORE_JARS)


def test_held_out_problems_are_compared_as_test_problems_are(tmp_path, two_sets):
    missing = ["gsm8k", "combibench"]
    found = load_test_sets(reading(tmp_path), 0.8, missing, {"held-out data": [JARS, JARS.upper()]})
    assert found.sizes == {"embedded:operations": 892, "held-out data": 2}
    assert found.texts["held-out data"].find(MORE_JARS.replace("Mia", "Omar"))


def test_a_set_that_is_here_but_broken_is_an_error(tmp_path, two_sets):
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl", {"problem": JARS})
    with pytest.raises(DataError, match="has no field question"):
        load_test_sets(reading(tmp_path), near=0.8)


def test_a_set_that_cannot_be_read_stops_the_job_unless_it_may_be_missing(tmp_path, two_sets):
    with pytest.raises(DataError, match=r"got none of gsm8k, combibench: .*allow_missing='\[combibench, gsm8k\]'"):
        load_test_sets(reading(tmp_path), near=0.8)
    found = load_test_sets(reading(tmp_path), near=0.8, allow_missing=["gsm8k", "combibench"])
    assert list(found.sizes) == ["embedded:operations"] and list(found.missing) == ["gsm8k", "combibench"]
    with pytest.raises(ConfigError, match="must name registered data sets, got gsm9k"):
        load_test_sets(reading(tmp_path), near=0.8, allow_missing=["gsm9k"])


def test_a_set_without_a_place_is_only_listed(two_sets, monkeypatch, tmp_path):
    registered = {name: DATA_SETS[name] for name in ("math500", "embedded:operations")}  # math500 is on the hub only
    monkeypatch.setattr("pipeline.questions.contamination.DATA_SETS", registered)
    assert list(load_test_sets(reading(tmp_path), near=0.8).missing) == ["math500"]


def test_the_proof_counts_copies_among_all_that_was_written_and_among_what_is_kept():
    known = TestSets({"a": Similar([JARS]), "b": Similar(["Find x."])}, {"a": 2, "b": 1}, {})
    statements = [JARS, JARS, MORE_JARS, "", "Something else entirely, and longer than six words."]
    rows = [{"statement": text, "is_kept": index == 1} for index, text in enumerate(statements)]
    assert proof(known, rows) == [
        {"name": "a", "num_problems": 2, "num_exact_written": 2, "num_near_written": 1}
        | {"num_exact_kept": 1, "num_near_kept": 0},
        {"name": "b", "num_problems": 1, "num_exact_written": 0, "num_near_written": 0}
        | {"num_exact_kept": 0, "num_near_kept": 0},
    ]
