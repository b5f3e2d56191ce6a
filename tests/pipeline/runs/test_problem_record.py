"""The problems that a stage can ask."""

import pytest

from pipeline.data.table import save_table
from pipeline.errors import CheckpointError
from pipeline.runs.problem_record import problems_path, read_problems, write_problems
from pipeline.types import Problem
from tests.support.data import write_jsonl


def problem(name: str, level: str | None = "1") -> Problem:
    prompt = ({"role": "system", "content": "s"}, {"role": "user", "content": f"What is {name}?"})
    return Problem(name, prompt, "2", level=level, type="sums", source="own")  # type: ignore[arg-type]


def test_own_problems_and_replayed_ones_are_recorded_once(tmp_path):
    own = save_table(tmp_path / "own", "own", [problem("a"), problem("b", None), problem("c")])
    write_problems(tmp_path, "rl", [own.take([0, 1]), own.take([1])])
    described = {"type": "sums", "source": "own", "gold": "2"}
    assert read_problems(tmp_path) == {
        "a": {"problem_id": "a", "level": "1", "question": "What is a?", **described},
        "b": {"problem_id": "b", "level": None, "question": "What is b?", **described},
    }


def test_stages_add_up(tmp_path):
    own = save_table(tmp_path / "own", "own", [problem("a"), problem("b")])
    write_problems(tmp_path, "one", [own.take([0])])
    write_problems(tmp_path, "two", [own, own.take([])])
    assert list(read_problems(tmp_path)) == ["a", "b"]


def test_a_run_of_an_earlier_version_knows_the_problems_of_its_samples(tmp_path):
    write_jsonl(
        tmp_path / "samples" / "step_000010.jsonl", {"problem_id": "a", "level": "1", "question": "?", "gold": 2}
    )
    assert read_problems(tmp_path)["a"]["gold"] == "2" and read_problems(tmp_path)["a"]["type"] is None


def test_a_corrupt_file_is_named(tmp_path):
    problems_path(tmp_path).mkdir()
    (problems_path(tmp_path) / "rl.parquet").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"rl\.parquet must hold problems"):
        read_problems(tmp_path)
