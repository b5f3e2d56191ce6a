"""Files of a generation."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import DataConfig, FieldNames
from pipeline.data import load_problems
from pipeline.errors import CheckpointError, DataError
from pipeline.questions.contamination import TestSets
from pipeline.questions.filters import Similar
from pipeline.questions.quotas import Cell
from pipeline.questions.written_files import read_report, result_lines, write_generation
from pipeline.runs.records import read_jsonl
from tests.support.written import BOATS, JARS, ROWS, SHELF, make_row

QUOTAS = {Cell("new", "stories", "1"): 1, Cell("new", "shops", "2"): 2}
RECORD = {"model": {"name": "tiny"}, "settings": {"seed": 3}, "num_too_long": 2}
FIELDS = FieldNames(question="problem", solution="solution", level="level", type="type", id="id")


def write(directory: Path, rows: list[dict] | None = None) -> dict:
    test_sets = TestSets({"gsm8k": Similar([BOATS])}, {"gsm8k": 1}, {"math": "not here"})
    others = {"training data": Similar([SHELF.replace("12", "80")])}
    return write_generation(directory, ROWS if rows is None else rows, QUOTAS, test_sets, others, {"seed": 3}, RECORD)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_problems_are_read_as_training_data(tmp_path, suffix):
    write(tmp_path)
    config = DataConfig(name=str(tmp_path / f"problems.{suffix}"), fields=FIELDS)
    first, second = load_problems(config, "train")
    assert (first.question, first.gold, first.level, first.type) == (JARS, "55", "1", "stories")
    assert first.solution == "<reasoning>\n5 * 11 = 55\n</reasoning>\n<answer>\n55\n</answer>"
    assert (second.id, second.question) == ("written-0-000000-1", SHELF)


def test_every_problem_says_who_wrote_it_and_how_good_it_is(tmp_path):
    write(tmp_path)
    lines = read_jsonl(tmp_path / "problems.jsonl")
    assert pq.read_table(tmp_path / "problems.parquet").to_pylist() == lines
    assert lines[0] == {
        **{"problem": JARS, "type": "stories", "source": "new", "solution": "5 * 11 = 55", "answer": "55"},
        **{"level": "1", "id": "written-0-000000-0", "quality": 0.75, "parts": {"checked": 1.0, "novel": 0.5}},
        **{"original": None, "model": "tiny", "seed": 7},
        "prompt": [{"role": "user", "content": "Write a problem."}],
    }
    assert read_jsonl(tmp_path / "written.jsonl") == ROWS


def test_the_report_counts_reasons_and_cells_and_proves_that_no_test_problem_is_kept(tmp_path):
    report = write(tmp_path)
    assert report == read_report(tmp_path)
    assert (report["num_asked"], report["num_written"], report["num_kept"]) == (3, 4, 2)
    assert report["reasons"] == {"exact duplicate": 1, "not well formed": 1}
    assert report["cells"][1] == {
        **{"kind": "new", "topic": "shops", "level": "2", "num_asked": 2, "num_written": 1, "num_kept": 1}
    }
    assert not report["is_complete"] and report["mean_parts"]["novel"] == {"written": 0.375, "kept": 0.5}
    (found,) = report["test_sets"]
    assert found["num_problems"] == 1 and found["num_exact_kept"] == found["num_near_kept"] == 0
    assert report["not_compared"] == {"math": "not here"}
    assert report["other_data"] == [
        {"name": "training data", "num_problems": 1, "num_exact_written": 0, "num_near_written": 1}
        | {"num_exact_kept": 0, "num_near_kept": 1}
    ]
    lines = "\n".join(result_lines(report))
    assert "2 tasks were too long" in lines
    assert "2 of 3 problems" in lines and "incomplete" in lines and "0 copies of 1 problems of 1 test sets" in lines


@pytest.mark.parametrize("planted", [BOATS, BOATS.lower() + " ", re.sub(r"\d+", "88", BOATS)])
def test_a_copy_that_the_filter_missed_stops_the_job_and_leaves_no_problems(tmp_path, planted):
    with pytest.raises(DataError, match=r"must be no copies of test problems, got 1: .* of gsm8k"):
        write(tmp_path, [*ROWS, make_row(statement=planted)])
    assert not list(tmp_path.glob("problems.*")) and not (tmp_path / "report.json").exists()


def test_nothing_may_be_kept(tmp_path):
    report = write(tmp_path, [make_row(reason="low quality")])
    assert report["num_kept"] == 0 and report["mean_parts"]["novel"]["kept"] is None
    assert pq.read_table(tmp_path / "problems.parquet").num_rows == 0
    assert (tmp_path / "problems.jsonl").read_text() == ""


def test_a_file_that_cannot_be_written_leaves_none_of_its_name(tmp_path):
    (tmp_path / "problems.parquet").mkdir()
    with pytest.raises(CheckpointError, match="output must be writable"):
        write(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not (tmp_path / "report.json").exists()
    with pytest.raises(CheckpointError, match="must be a finished generation"):
        read_report(tmp_path)
