"""Data of a student: written problems, and as many tokens of real ones."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from pipeline.config import DataConfig, FieldNames
from pipeline.data import load_problems
from pipeline.errors import ConfigError, DataError
from pipeline.questions.student import Counted, Example, StudentSettings, prepare_student, same_tokens
from pipeline.runs.checkpoints import CheckpointStore, Progress
from tests.support.data import write_jsonl
from tests.support.models import save_tiny_model
from tests.support.written import BOATS, JARS, SHELF, make_row

FIELDS = FieldNames(question="question", answer="answer", solution="solution", level="level", type="type", id="id")


def counted(*lengths: int, level: str = "1") -> list[Counted]:
    return [
        Counted(Example(f"{level} {n}", "1", "so", level, "", f"{level}-{n}"), length)
        for n, length in enumerate(lengths)
    ]


def lengths(problems: list[Counted]) -> list[int]:
    return [problem.num_tokens for problem in problems]


SAME_TOKENS = {
    "equal lengths": ([10, 12], [13, 12, 11, 10], [10, 12]),
    # 10 is 1 more than 9, so 11 is asked for next: 12; that is 1 too many, so 9 is asked for
    "what was missing is made up for": ([10, 10, 10], [9, 12, 9, 12], [9, 12, 9]),
    # 10 is asked for, then 4 (none helps), then 14: 32 against 30
    "longer ones are fewer": ([10, 10, 10], [16, 16, 16], [16, 16]),
    # 10, 16 and then what is still missing: 12, 8, 4
    "shorter ones are more": ([10, 10], [4] * 6, [4] * 5),
}


@pytest.mark.parametrize(("written", "pool", "chosen"), SAME_TOKENS.values(), ids=SAME_TOKENS)
def test_real_problems_have_as_many_tokens_as_written_ones(written, pool, chosen):
    assert lengths(same_tokens(counted(*written), counted(*pool))) == chosen


def test_real_problems_have_the_levels_of_written_ones_as_far_as_there_are_enough():
    written = [*counted(20, level="1"), *counted(20, 20, level="3")]
    pool = [*counted(20, 20, level="1"), *counted(20, 20, 20, level="2"), *counted(20, level="3")]
    # the second problem of level 3 is one of the level that has most left
    assert [problem.example.level for problem in same_tokens(written, pool)] == ["1", "3", "2"]


@pytest.mark.parametrize("pool", [[], [10, 10]])
def test_too_few_real_problems_are_an_error(pool):
    with pytest.raises(DataError, match=f"tokens of training problems as the written ones, 30, got {sum(pool)}"):
        same_tokens(counted(10, 10, 10), counted(*pool))


# Files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


def row(problem: str, **values: str) -> dict:
    return {"problem": problem, "solution": "5 * 11 = 55", "answer": "55", "level": "1", "type": "toys", **values}


@pytest.fixture
def data(tmp_path) -> str:
    """Six sums to train on, as long as each other, and two problems that are held out. Tokens are bytes."""
    train = [row(f"{a} + {a}?", level=level) for level, numbers in (("1", "234"), ("2", "567")) for a in numbers]
    write_jsonl(tmp_path / "real" / "train.jsonl", *train, row("No answer?", answer=""), row("9 + 9?"))
    write_jsonl(tmp_path / "real" / "test.jsonl", row(JARS), row("9 + 9?", level="2"))
    return str(tmp_path / "real")


def settings(tmp_path: Path, data: str, model: str, written: Path, **values: int) -> StudentSettings:
    return StudentSettings(written, data, tmp_path / "out", model, **values)


def test_both_sides_are_written_in_one_layout_with_the_same_held_out_problems(tmp_path, data, model):
    written = tmp_path / "problems.jsonl"
    write_jsonl(
        written, row("8 * 8?"), row("7 * 7?", level="2"), row("7 * 7?"), row(JARS.replace("5", "7")), row("9+9 ?")
    )
    found = prepare_student(settings(tmp_path, data, model, written))
    near, exact = "held-out problem (near)", "held-out problem (exact)"
    assert found.left_out["written"] == {"repeated": 1, near: 1, exact: 1}
    assert found.left_out["real"] == {"without a question, an answer or a solution": 1, exact: 1}
    out = tmp_path / "out"
    assert (out / "written" / "test.parquet").read_bytes() == (out / "real" / "test.parquet").read_bytes()
    assert pq.read_table(out / "real" / "train.parquet").column_names == list(Example._fields)
    for side, sign in (("written", "*"), ("real", "+")):
        config = DataConfig(name=str(out / side), fields=FIELDS)
        train, test = load_problems(config, "train"), load_problems(config, "eval")
        assert {problem.level for problem in train} == {"1", "2"} and sign in train[0].question
        assert train[0].solution == "<reasoning>\n5 * 11 = 55\n</reasoning>\n<answer>\n55\n</answer>"
        assert [problem.question for problem in test] == [JARS, "9 + 9?"]


def test_a_held_out_problem_with_other_numbers_and_names_is_left_out(tmp_path, data, model):
    """As the filter of written problems rejects it as a copy of a test problem."""
    retold = JARS.replace("5", "7").replace("11", "20").replace("Mia", "Omar")
    write_jsonl(tmp_path / "problems.jsonl", row("8 * 8?"), row("7 * 7?", level="2"), row(retold))
    found = prepare_student(settings(tmp_path, data, model, tmp_path / "problems.jsonl"))
    assert found.left_out["written"] == {"held-out problem (near)": 1}


def test_copies_of_real_problems_are_left_out_of_the_written_side(tmp_path, data, model):
    written = tmp_path / "problems.jsonl"
    write_jsonl(written, row("8 * 8?"), row("2+2 ?"), row("7 * 7?", level="2"))
    found = prepare_student(settings(tmp_path, data, model, written))
    assert found.left_out["written"] == {"copy of a real problem (exact)": 1}


def test_the_record_says_how_many_tokens_each_side_has(tmp_path, data, model):
    write_jsonl(tmp_path / "problems.jsonl", row("8 * 8?"), row("7 * 7?", level="2"))
    prepare_student(settings(tmp_path, data, model, tmp_path / "problems.jsonl"))
    record = json.loads((tmp_path / "out" / "student.json").read_text())
    # 6 bytes of the question; of the solution 11 + 1 + 11 + 1 + 12 + 1 + 8 + 1 + 2 + 1 + 9 = 58
    counts = {"num_problems": 2, "num_tokens": 2 * (6 + 58), "levels": {"1": 1, "2": 1}}
    assert record["written"] == {**counts, "left_out": {}}
    assert {**record["real"], "left_out": {}} == {**counts, "left_out": {}}
    assert record["settings"]["seed"] == 0 and len(record["sha256"]) == 4


def test_the_problems_are_drawn_by_the_seed(tmp_path, data, model):
    write_jsonl(tmp_path / "problems.jsonl", *(row(f"{a} * {a}?") for a in range(2, 9)))
    drawn = [
        [
            item.example.question
            for item in prepare_student(
                StudentSettings(tmp_path / "problems.jsonl", data, tmp_path / str(place), model, seed, max_problems=3)
            ).train["written"]
        ]
        for place, seed in enumerate((0, 0, 1))
    ]
    assert len(drawn[0]) == 3 and drawn[0] == drawn[1] != drawn[2]


def run_that_wrote(directory: Path, *stages: list[dict]) -> Path:
    store = CheckpointStore(directory / "checkpoints")
    for step, rows in enumerate(stages, 1):
        progress = Progress(f"stage{step}", 1, step, stage_done=True)
        store.save(progress, {"w": torch.zeros(1)}, {}, None, written=rows)
    return directory


def test_a_run_gives_what_its_stages_wrote_and_kept(tmp_path, data, model):
    rejected = make_row(statement="1 + 1?", reason="near duplicate")
    run = run_that_wrote(
        tmp_path / "run", [make_row(statement=SHELF), rejected], [make_row(statement=BOATS, level="2")]
    )
    found = prepare_student(settings(tmp_path, data, model, run))
    assert sorted(item.example.question for item in found.train["written"]) == sorted([SHELF, BOATS])


def test_nothing_is_written_when_no_written_problem_is_left(tmp_path, data, model):
    run = run_that_wrote(tmp_path / "run", [make_row(statement=SHELF, reason="fails checked"), make_row(reason="copy")])
    with pytest.raises(DataError, match="got none of 2: 1 fails checked, 1 copy"):
        prepare_student(settings(tmp_path, data, model, run))
    copy = tmp_path / "problems.jsonl"
    write_jsonl(copy, row(JARS))
    with pytest.raises(DataError, match=r"got none of them: 1 held-out problem \(exact\)"):
        prepare_student(settings(tmp_path, data, model, copy))
    assert not (tmp_path / "out").exists()


def test_settings_and_data_that_cannot_be_used_are_named(tmp_path, data, model):
    with pytest.raises(DataError, match=r"nowhere\.parquet does not exist\. Give problems\.parquet"):
        prepare_student(settings(tmp_path, data, model, tmp_path / "nowhere.parquet"))
    write_jsonl(tmp_path / "other.jsonl", {"statement": JARS})
    with pytest.raises(DataError, match="has no field problem"):
        prepare_student(settings(tmp_path, data, model, tmp_path / "other.jsonl"))
    with pytest.raises(ConfigError, match="--max-problems must be at least 1, got 0"):
        prepare_student(settings(tmp_path, data, model, tmp_path, max_problems=0))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(DataError, match="is not empty"):
        prepare_student(settings(tmp_path, data, model, tmp_path))
