"""A generation is resumed only with what it started with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from pipeline.questions.generation_record import RECORD_FILE, GenerationRecord

RECORD = GenerationRecord(
    model={"path": "tiny"},
    run={"data": {}},
    cells={"new sums 1": 4},
    compared={"gsm8k": 3, "old.jsonl": 2, "training data": 5},
    settings={"seed": 0, "loading": {"dtype": "float32"}},
    digests={"tasks": "t1", "test sets": {"gsm8k": "a1"}, "other data": {"old.jsonl": "b1"}},
    solver={"model.safetensors": "c1"},
    num_too_long=1,
)
CHANGES = {
    "a test set": {"digests": {**RECORD.digests, "test sets": {"gsm8k": "a2"}}},
    "other data": {"digests": {**RECORD.digests, "other data": {"old.jsonl": "b2"}}},
    "training data": {"digests": {**RECORD.digests, "tasks": "t2"}},
    "the solver": {"solver": {"model.safetensors": "c2"}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_texts_and_weights_of_the_same_number_are_refused(tmp_path, change):
    RECORD.write(tmp_path)
    RECORD.check(tmp_path)
    with pytest.raises(CheckpointError, match=f"its {next(iter(change))} differ: .*was .*1', is .*2'"):
        replace(RECORD, **change).check(tmp_path)


def test_a_dry_run_does_not_need_the_files_of_the_solver(tmp_path):
    RECORD.write(tmp_path)
    without = replace(RECORD, solver={})
    without.check(tmp_path)  # no CheckpointError
    assert without != RECORD


def write_older(directory: Path, **compared: int) -> None:
    """Write the record of a version that compared only counts, and ignored the run's own data."""
    RECORD.write(directory)
    record = json.loads((directory / RECORD_FILE).read_text())
    parts = {name: record[name] for name in ("model", "run", "cells", "settings")}
    (directory / RECORD_FILE).write_text(json.dumps(parts | {"compared": compared}))


def test_a_record_of_an_older_version_is_compared_by_what_it_has(tmp_path):
    write_older(tmp_path, **{"gsm8k": 3, "old.jsonl": 2})
    RECORD.check(tmp_path)
    write_older(tmp_path, **{"gsm8k": 4, "old.jsonl": 2})
    with pytest.raises(CheckpointError, match="its compared differ: gsm8k: was 4, is 3"):
        RECORD.check(tmp_path)
