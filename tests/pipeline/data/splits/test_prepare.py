"""Splits from end to end: the files, and all or nothing."""

import json
import os
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import DataConfig, FieldNames, ProblemFilter
from pipeline.data import arithmetic, load_problems
from pipeline.data.selection import select_problems
from pipeline.data.splits import SplitSettings, files, prepare_split
from pipeline.errors import ConfigError, DataError
from pipeline.files import sha256
from tests.conftest import SHARED
from tests.support.data import check_nothing_is_shared, math_row, write_jsonl

needs_math = pytest.mark.skipif(not (SHARED / "math").is_dir(), reason=f"{SHARED / 'math'} does not exist")
FIELDS = FieldNames(question="problem", answer="answer", solution="solution", level="level", type="type", id="id")


def test_all_files_of_a_directory_are_pooled_and_split(tmp_path):
    train = [math_row(f"problem {number}", f"Level {1 + number % 2}") for number in range(30)]
    write_jsonl(tmp_path / "data" / "train.jsonl", *train)
    write_jsonl(tmp_path / "data" / "test.jsonl", *[math_row(f"Problem: {number}.") for number in range(10)])
    (tmp_path / "data" / "README.md").write_text("not data")
    split = prepare_split(SplitSettings(str(tmp_path / "data"), tmp_path / "out"))
    check_nothing_is_shared(split.train, split.test)
    assert len(split.train + split.test) == 40
    assert {r.source for r in split.train} == {"data/train.jsonl", "data/test.jsonl"}
    only = prepare_split(SplitSettings(str(tmp_path / "data"), tmp_path / "only", split="train[:20]"))
    assert len(only.train + only.test) == 20


def test_problems_with_several_answers_are_kept_and_counted(tmp_path):
    rows = [math_row(f"p{number}", solution=rf"\boxed{{{number}}}") for number in range(20)]
    other = [math_row(f"p{number}", solution=r"\boxed{99}") for number in (3, 3, 4)]
    split = prepare_split(SplitSettings(write_jsonl(tmp_path / "a.jsonl", *rows, *other), tmp_path / "out"))
    [note] = split.notes
    assert note.startswith("2 problems have different answers, in 4 rows that are all kept (the first: id ")
    assert len(split.train + split.test) == 22
    assert json.loads((tmp_path / "out" / "split.json").read_text())["notes"] == [note]


def test_the_files_can_be_read_by_a_recipe_and_say_how_they_were_made(tmp_path):
    rows = [math_row(f"p{number}", f"Level {1 + number % 5}", type="AB"[number % 2]) for number in range(100)]
    name = write_jsonl(tmp_path / "set.jsonl", *[*rows, math_row("last", "Level 6"), math_row("no", "Level ?")])
    split = prepare_split(SplitSettings(name, tmp_path / "new" / "out", seed=5))
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == ["split.json", "test.parquet", "train.parquet"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert pq.read_table(out / "test.parquet").to_pylist() == [asdict(r) for r in split.test]
    config = DataConfig(name=str(out), fields=FIELDS)
    train, test = load_problems(config, "train"), load_problems(config, "eval")
    assert (len(train), len(test)) == (81, 20)
    chosen = select_problems(train, ProblemFilter(levels=["Level 2"], types=["A"]))
    assert {(p.level, p.type) for p in chosen} == {("Level 2", "A")}
    assert train[0].solution == "<reasoning>\nso \\boxed{1}\n</reasoning>\n<answer>\n1\n</answer>"
    assert [p.id for p in train] == [r.id for r in split.train]
    summary = json.loads((out / "split.json").read_text())
    assert summary["settings"]["seed"] == 5 and summary["settings"]["test_fraction"] == 0.2
    assert summary["num_rows"] == {"train": 81, "test": 20}
    assert summary["levels"]["Level 3"] == {"train": 16, "test": 4}
    assert summary["left_out"] == {"without a usable level": {"count": 1, "examples": ["set.jsonl row 102"]}}
    assert summary["notes"] == split.notes == ["level Level 6 cannot be split: its 1 row is in train"]
    for name, digest in summary["sha256"].items():
        assert sha256(out / name) == digest


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [math_row(f"p{number}", f"Level {1 + number % 3}") for number in range(60)]
    prepare_split(SplitSettings(write_jsonl(tmp_path / "a" / "set.jsonl", *rows), tmp_path / "x"))
    prepare_split(SplitSettings(write_jsonl(tmp_path / "b" / "set.jsonl", *rows[::-1]), tmp_path / "y"))
    for name in ("train.parquet", "test.parquet"):
        assert sha256(tmp_path / "x" / name) == sha256(tmp_path / "y" / name)


def test_a_cap_keeps_as_many_of_each_level(tmp_path):
    rows = [math_row(f"p{number}", f"Level {1 + number % 2}") for number in range(60)]
    settings = SplitSettings(write_jsonl(tmp_path / "set.jsonl", *rows), tmp_path / "out", max_per_level=10)
    split = prepare_split(settings)
    assert split.counts(lambda r: r.level) == {
        "Level 1": {"train": 8, "test": 2},
        "Level 2": {"train": 8, "test": 2},
    }
    assert split.left_out.counts == {"beyond --max-per-level": 40}


def test_force_replaces_a_split_and_leaves_other_files(tmp_path):
    settings = SplitSettings(
        write_jsonl(tmp_path / "set.jsonl", *[math_row(f"p{n}") for n in range(20)]), tmp_path / "out"
    )
    prepare_split(settings)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty.*--force"):
        prepare_split(settings)
    before = sha256(tmp_path / "out" / "train.parquet")
    prepare_split(SplitSettings(settings.data, settings.output, seed=1, force=True))
    assert sha256(tmp_path / "out" / "train.parquet") != before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "notes.txt",
        "split.json",
        "test.parquet",
        "train.parquet",
    ]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_while_writing_leaves_everything_as_it_was(tmp_path, monkeypatch, existing):
    name = write_jsonl(tmp_path / "set.jsonl", *[math_row(f"p{n}") for n in range(20)])
    if existing:
        prepare_split(SplitSettings(name, tmp_path / "out"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        prepare_split(SplitSettings(name, tmp_path / "out", seed=1, force=True))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "out").exists() == existing


def test_a_kill_while_replacing_never_leaves_files_of_two_splits(tmp_path, monkeypatch):
    name, out = write_jsonl(tmp_path / "set.jsonl", *[math_row(f"p{n}") for n in range(20)]), tmp_path / "out"
    prepare_split(SplitSettings(name, out))
    replace, seen = os.replace, []

    def look(source: Path, target: Path) -> None:
        seen.append(sorted(path.name for path in out.glob("[a-z]*")))
        replace(source, target)
        seen.append(sorted(path.name for path in out.glob("[a-z]*")))

    monkeypatch.setattr(os, "replace", look)
    monkeypatch.setattr(files, "write_json", lambda path, value: path.write_text("{}"))
    prepare_split(SplitSettings(name, out, seed=1, force=True))
    both = ["test.parquet", "train.parquet"]
    assert seen == [["train.parquet"], ["train.parquet"], ["train.parquet"], both, both, ["split.json", *both]]


def test_data_is_never_overwritten_by_its_split(tmp_path):
    name = write_jsonl(tmp_path / "data" / "train.jsonl", *[math_row(f"p{n}") for n in range(20)])
    for data in (name, str(tmp_path / "data")):
        with pytest.raises(DataError, match="holds the data"):
            prepare_split(SplitSettings(data, tmp_path / "data", force=True))


@pytest.mark.parametrize(
    ("rows", "settings", "error", "message"),
    [
        ([math_row("a")], {}, DataError, "of 1 usable rows none can be held out"),
        ([math_row("a"), math_row("A", solution=r"\boxed{2}")], {}, DataError, "of 2 usable rows none can be held out"),
        ([math_row("a", "Level ?")], {}, DataError, r"has none: 1 without a usable level \(set.jsonl row 1\)"),
        ([math_row("a")], {"test_fraction": 1.0}, ConfigError, "--test-fraction must be above 0 and below 1, got 1"),
        ([math_row("a")], {"test_fraction": float("nan")}, ConfigError, "got nan"),
        ([math_row("a")], {"max_per_level": 0}, ConfigError, "--max-per-level must be at least 1, got 0"),
        ([math_row("a")], {"level_field": ""}, ConfigError, "--level-field must name a column"),
        (
            [math_row("a")],
            {"level_field": "grade"},
            DataError,
            "no field grade: it has problem, level, .*--level-field",
        ),
        ([math_row("a")], {"data": "embedded:algebra"}, DataError, "must be embedded:arithmetic"),
        ([math_row("a")], {"data": "embedded:arithmetic", "split": "train"}, ConfigError, "--split and --subset"),
    ],
)
def test_a_user_error_is_one_line_and_writes_nothing(tmp_path, rows, settings, error, message):
    name = write_jsonl(tmp_path / "set.jsonl", *rows)
    with pytest.raises(error, match=message) as caught:
        prepare_split(SplitSettings(**{"data": name, "output": tmp_path / "out", **settings}))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["set.jsonl"]


def test_the_embedded_set_is_split_with_and_without_worked_solutions(tmp_path):
    split = prepare_split(SplitSettings(arithmetic.NAME, tmp_path / "out"))
    assert split.counts(lambda r: r.level) == {level: {"train": 640, "test": 160} for level in "12345"}
    check_nothing_is_shared(split.train, split.test)
    assert sum(r.solution is not None for r in split.train + split.test) == 400 + 400 + 40 + 20 + 10
    train = load_problems(DataConfig(name=str(tmp_path / "out"), fields=FIELDS), "train")
    assert len(train) == 3200 and {p.type for p in train} == {None}
    assert any(p.solution is None for p in train) and any(p.solution for p in train)


@pytest.mark.slow  # 12,500 rows
@needs_math
def test_math(tmp_path):
    """12,500 rows less two of Level ?, two whose box is empty, and one that differs from another by a line's end."""
    split = prepare_split(SplitSettings(str(SHARED / "math"), tmp_path / "out", stratify_by=("level", "type")))
    assert split.left_out.counts == {
        "without a usable level": 2,
        "without an answer": 2,
        "repeating a problem and its answer": 1,
    }
    assert len(split.train + split.test) == 12_495
    check_nothing_is_shared(split.train, split.test)
    assert split.notes == []
    strata = defaultdict(list)
    for side in ("train", "test"):
        for record in getattr(split, side):
            strata[record.level].append(side)
            strata[record.level, record.type].append(side)
    assert len(strata) == 5 + 5 * 7
    for stratum, sides in strata.items():
        assert abs(sides.count("test") - 0.2 * len(sides)) < (1 if isinstance(stratum, str) else 1.5)
    test = load_problems(DataConfig(name=str(tmp_path / "out"), fields=FIELDS), "eval")
    assert len(test) == len(split.test) == 2499
    assert len(select_problems(test, ProblemFilter(levels=["Level 1"]))) == 200
