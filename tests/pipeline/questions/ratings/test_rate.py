"""From data sets to rated problems, a data card, and training data again."""

import json
import signal
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.prepare_data import main
from pipeline.config import DataConfig, FieldNames
from pipeline.data import load_problems
from tests.support.data import math_row, write_jsonl

FIELDS = FieldNames(question="problem", answer="answer", solution="solution", level="level", type="topic", id="id")


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.fixture
def data(tmp_path) -> list[str]:
    """As MATH and as the olympiad set store problems."""
    as_math = write_jsonl(
        tmp_path / "math" / "train.jsonl",
        math_row("What is $3 + 4$?", "Level 1", r"It is $3 + 4 = \boxed{7}$."),
        math_row("What is $30 + 4$?", "Level 5", r"It is $30 + 4 = \boxed{35}$."),
        math_row("What is $1 + 1$?", "Level 2", "It is two."),
    )
    olympiad = {"answer": "2", "difficulty": 8.5, "dataset": "Contest", "source": "imo", "solution": None}
    rows = [{"problem": "Find the only even prime.", "subject": ["Number Theory", "Algebra"], **olympiad}]
    return [str(tmp_path / "math"), write_jsonl(tmp_path / "olympiad.jsonl", *rows)] if as_math else []


def rate(output, *arguments: str) -> list[dict[str, Any]]:
    main(["rate", "--output", str(output), *arguments])
    return pq.read_table(output / "train.parquet").to_pylist()


def test_rows_of_several_layouts_become_one_table(tmp_path, data, capsys):
    first, second, third = sorted(rate(tmp_path / "out", "--data", *data), key=lambda row: row["difficulty"])
    assert {key: first[key] for key in ("problem", "answer", "level", "difficulty", "topic", "quality")} == {
        "problem": "What is $3 + 4$?",
        "answer": "7",
        "level": "elementary",
        "difficulty": 1.0,
        "topic": "algebra",
        "quality": 1.0,
    }
    assert (second["level"], second["quality"]) == ("advanced", 0.2)
    assert second["quality_reasons"] == "the last step is wrong: 30 + 4 is not 35"
    assert (third["level"], third["topic"], third["difficulty"]) == ("olympiad", "number theory", 8.5)
    assert (third["source"], third["solution"]) == ("olympiad.jsonl: Contest", None)
    assert "1 without an answer (math/train.jsonl row 3)" in capsys.readouterr().out


def test_a_file_name_tells_no_contest_by_a_vague_word(tmp_path):
    row = {"problem": "Find the only even prime.", "answer": "2"}
    rows = {
        name: rate(tmp_path / name, "--data", write_jsonl(tmp_path / f"{name}.jsonl", row))
        for name in ("national_exam", "my_selection", "usamo_2020")
    }
    assert {name: found["difficulty"] for name, (found,) in rows.items()} == {
        "national_exam": None,
        "my_selection": None,
        "usamo_2020": 7.5,
    }


def test_data_sets_are_mixed_by_the_seed(tmp_path):
    for name in ("a", "b"):
        rows = [
            math_row(f"What is ${number} + {len(name)}{name}$?", "Level 1", rf"\boxed{{{number}}}")
            for number in range(20)
        ]
        write_jsonl(tmp_path / f"{name}.jsonl", *rows)
    data = ["--data", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    first, again, other = (
        [row["source"] for row in rate(tmp_path / f"out{index}", *data, "--seed", seed)]
        for index, seed in enumerate(("0", "0", "1"))
    )
    assert sorted(first) == ["a.jsonl"] * 20 + ["b.jsonl"] * 20 != first
    assert first == again != other


def test_the_card_counts_what_was_kept_and_what_was_not(tmp_path, data):
    rate(tmp_path / "out", "--data", *data, "--min-quality", "0.5", "--licence", "MIT", "not stated")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["num_problems"] == 2
    assert card["levels"]["elementary"]["algebra"] == card["levels"]["olympiad"]["number theory"] == 1
    assert {reason: each["count"] for reason, each in card["left_out"].items()} == {
        "below the quality asked for, mostly by reached": 1,
        "without an answer": 1,
    }
    assert card["sources"] == {
        data[0]: {"num_rated": 2, "licence": "MIT"},
        data[1]: {"num_rated": 1, "licence": "not stated"},
    }
    assert "| elementary | 1 | 0 | 1 |" in (tmp_path / "out" / "card.md").read_text()


def test_filters_keep_levels_and_topics(tmp_path, data):
    assert len(rate(tmp_path / "levels", "--data", *data, "--levels", "olympiad", "advanced")) == 2
    assert len(rate(tmp_path / "topics", "--data", *data, "--topics", "number theory")) == 1


def test_the_files_are_on_the_disk_before_the_directory_has_its_name(tmp_path, data, monkeypatch):
    synced: list[str] = []
    monkeypatch.setattr("pipeline.files.sync", lambda path: synced.append(path.name))
    rate(tmp_path / "out", "--data", *data)
    assert {"train.parquet", "card.json", "card.md"} <= set(synced)


def test_the_output_is_training_data(tmp_path, data):
    rate(tmp_path / "out", "--data", *data)
    config = DataConfig(name=str(tmp_path / "out"), fields=FIELDS, answer_format="plain")
    problems = load_problems(config, "train")
    assert {(problem.gold, problem.level, problem.type) for problem in problems} == {
        ("7", "elementary", "algebra"),
        ("35", "advanced", "algebra"),
        ("2", "olympiad", "number theory"),
    }


def found(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = [row for row in rows if row["problem"] == "What is $3 + 4$?"]
    return row


def test_measured_solve_rates_are_combined_with_the_source(tmp_path, data):
    """Solved in 2 of 8 attempts: 10 - 9 / 4 = 7.75; half of the way from 1 is 4.375, rounded 4.38."""
    outcomes = ["correct"] * 2 + ["incorrect"] * 6
    results = [{"question": "What is $3 + 4$?", "problem_id": "x", "outcome": outcome} for outcome in outcomes]
    rates = write_jsonl(tmp_path / "eval_results.jsonl", *results)
    first = found(rate(tmp_path / "out", "--data", *data, "--solve-rates", rates))
    assert (first["difficulty"], first["level"]) == (4.38, "advanced")
    shares = write_jsonl(tmp_path / "shares.jsonl", {"problem": "What is $3+4$?", "solve_rate": 0.25})
    again = found(rate(tmp_path / "again", "--data", *data, "--solve-rates", shares))
    assert again["difficulty"] == 4.38


USER_ERRORS = {
    "quality": (["--min-quality", "2"], "--min-quality must be from 0 to 1, got 2"),
    "level": (["--levels", "hard"], "--levels must be among elementary, intermediate"),
    "topic": (["--topics", "maths"], "--topics must be among algebra, geometry"),
    "licence": (["--licence", "MIT"], "--licence must be given once for each --data"),
    "nothing left": (["--topics", "calculus"], "must have problems to keep, and has none: 3 of another topic"),
    "rates": (["--solve-rates", "olympiad.jsonl"], "--solve-rates olympiad.jsonl must have one of"),
    "output in use": (["--output", "math"], "output math must be a new or empty directory"),
}


@pytest.mark.parametrize(("arguments", "message"), USER_ERRORS.values(), ids=USER_ERRORS)
def test_a_user_error_is_named_and_nothing_is_written(tmp_path, data, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as left:
        main(["rate", "--output", "out", "--data", *data, *arguments])
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.startswith("error: ") and message in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow  # generates a thousand problems
def test_embedded_sets_are_rated_too(tmp_path):
    rows = rate(tmp_path / "out", "--data", "embedded:operations", "--min-quality", "0.5")
    assert len(rows) > 100 and {row["level"] for row in rows} <= {"elementary", "intermediate", "advanced"}
