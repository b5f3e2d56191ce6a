import json
import os
from collections import Counter, defaultdict
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config import DataConfig, FieldNames, ProblemFilter
from pipeline.data import arithmetic, load_problems
from pipeline.data.selection import select_problems
from pipeline.data.splits import SplitSettings, files, prepare_split
from pipeline.data.splits.records import Record, is_usable_level, read_records
from pipeline.data.splits.stratify import apportion, held_out_quotas, normalized, split_records
from pipeline.errors import ConfigError, DataError
from pipeline.files import sha256
from tests.conftest import SHARED

needs_math = pytest.mark.skipif(not (SHARED / "math").is_dir(), reason=f"{SHARED / 'math'} is not there")
FIELDS = FieldNames(question="problem", answer="answer", solution="solution", level="level", type="type", id="id")


def record(problem: str, level: str = "Level 1", type: str | None = None, answer: str = "1") -> Record:
    return Record(problem, f"so {answer}", answer, level, type, "made up", id=f"{problem}/{answer}")


def problems(prefix: str, count: int, level: str, type: str | None = None) -> list[Record]:
    return [record(f"{prefix}{number}", level, type) for number in range(count)]


def row(problem: str, level: object = "Level 1", solution: object = r"so \boxed{1}", type: str = "Algebra") -> dict:
    return {"problem": problem, "level": level, "type": type, "solution": solution}


def write(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def per_level(records: list[Record]) -> dict[str, int]:
    return dict(Counter(record.level for record in records))


def check_nothing_is_shared(train: list[Record], test: list[Record]) -> None:
    assert not {normalized(record.problem) for record in train} & {normalized(record.problem) for record in test}


def test_normalized_keeps_letters_and_digits_alone():
    assert normalized(" What is\n$X^{2} + Y$?") == normalized("what is x^2+y") == "whatisx2y"
    assert normalized("Straße ２") == "strasse2"
    assert normalized(" ?! ") == "?!"


def test_apportion_rounds_the_largest_remainders_up():
    # Of 5, 4, 4 a fifth is 1.0, 0.8, 0.8, together 2.6, so 3: the whole parts give 1, and both 0.8 are rounded up.
    assert apportion({"a": 5, "b": 4, "c": 4}, Fraction(1, 5)) == {"a": 1, "b": 1, "c": 1}
    # A quarter of 5, 6, 6 is 1.25, 1.5, 1.5, together 4.25, so 4: one of the equal remainders, the first name's.
    assert apportion({"c": 6, "b": 6, "a": 5}, Fraction(1, 4)) == {"a": 1, "b": 2, "c": 1}


def test_quotas_of_types_add_up_to_that_of_their_level():
    records = [*problems("a", 7, "1", "x"), *problems("b", 8, "1", "y"), *problems("c", 3, "2", "x")]
    # 15 and 3 rows: 3.0 and 0.6, together 3.6, so 4. Of level 1's 3: 7 / 5 = 1.4 and 8 / 5 = 1.6.
    assert held_out_quotas(records, 0.2) == {("1", ""): 3, ("2", ""): 1}
    assert held_out_quotas(records, 0.2, by_type=True) == {("1", "x"): 1, ("1", "y"): 2, ("2", "x"): 1}


def test_a_level_of_two_is_on_both_sides_and_a_single_row_is_for_training():
    records = [*problems("a", 20, "1"), *problems("b", 2, "2"), record("c", "3")]
    assert held_out_quotas(records, 0.1) == {("1", ""): 2, ("2", ""): 1, ("3", ""): 0}
    assert held_out_quotas(records, 0.9) == {("1", ""): 18, ("2", ""): 1, ("3", ""): 0}


def test_every_level_has_its_share_and_no_record_is_lost():
    records = [*problems("a", 50, "1"), *problems("b", 30, "2"), *problems("c", 20, "10")]
    train, test = split_records(records, 0.2)
    assert per_level(test) == {"1": 10, "2": 6, "10": 4}
    assert sorted(r.id for r in train + test) == sorted(r.id for r in records)
    assert [r.level for r in train[:12]] != sorted(r.level for r in train[:12])


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    records = [*problems("a", 50, "1"), *problems("b", 30, "2")]
    first = split_records(records, 0.2, seed=3)
    assert split_records(records[::-1], 0.2, seed=3) == first
    assert {r.id for r in split_records(records, 0.2, seed=4)[1]} != {r.id for r in first[1]}


def test_a_split_is_the_same_on_every_machine():
    # printf '0 split a0' | sha256sum, and so on: 7b8b, c15d, e9d4, 80b5, 9223. The two smallest are held out.
    _, test = split_records(problems("a", 5, "1"), 0.4)
    assert {r.problem for r in test} == {"a0", "a3"}


@pytest.mark.parametrize("seed", range(20))
def test_the_same_problem_stays_on_one_side(seed):
    records = problems("Find $x_", 40, "1")
    for number in range(8):  # three spellings with two answers, and in two levels
        records += [
            record(f"{number} + N?", "1"),
            record(f"{number}+n", "2"),
            record(f"{number} - n.", "2", answer="2"),
        ]
    records += problems("other ", 30, "2")
    train, test = split_records(records, 0.25, seed=seed)
    check_nothing_is_shared(train, test)
    assert per_level(test) == {"1": 12, "2": 12}  # of 48 and 46 rows: 12.0 and 11.5, together 23.5, so 24


def test_groups_that_do_not_fit_come_as_near_as_they_can():
    # A fifth of 12 rows is 2.4, so 2. Groups of 3 do not fit: one too many is nearer than two too few.
    records = [record(f"{number}{sign}", answer=sign) for number in range(4) for sign in "+-*"]
    train, test = split_records(records, 0.2)
    assert (len(train), len(test)) == (9, 3)
    check_nothing_is_shared(train, test)


def test_unusable_rows_are_counted_with_where_they_are_and_left_out(tmp_path):
    rows = [row("a"), row("b", "Level ?"), row("c", ""), row("d", None), row("e", "Level 2", None), row("f")]
    rows += [row("g", solution="none"), row("h", solution=r"\boxed{}"), row(" "), row(" a\n"), row("a", "Level 5")]
    rows += [row("i", "level ?"), row("a", solution=r"\boxed{2}"), row("A")]
    records, left_out = read_records(SplitSettings(write(tmp_path / "set.jsonl", rows), tmp_path / "out"))
    assert [(r.problem, r.level, r.answer) for r in records] == [
        ("a", "Level 1", "1"),
        ("f", "Level 1", "1"),
        ("a", "Level 1", "2"),
        ("A", "Level 1", "1"),
    ]
    assert records[2].id == f"{records[0].id}-2" and records[0].id == "ca978112ca1b"  # printf a | sha256sum
    assert left_out.lines() == [
        "2 repeating a problem and its answer (set.jsonl row 10, set.jsonl row 11)",
        "1 without a problem (set.jsonl row 9)",
        "1 without a solution (set.jsonl row 5)",
        "4 without a usable level (set.jsonl row 2, set.jsonl row 3, set.jsonl row 4, ...)",
        "2 without an answer (set.jsonl row 7, set.jsonl row 8)",
    ]


@pytest.mark.parametrize("level", ["Level 1", "7", "hard", "Level unknown ground", "4.5"])
def test_a_level_is_whatever_says_something(level):
    assert is_usable_level(level)


@pytest.mark.parametrize("level", ["", "Level ?", "?", "Level", "nan", "None", "N/A", "level: unknown"])
def test_a_level_that_says_nothing_is_none(level):
    assert not is_usable_level(level)


@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        ({"q": "1 + 1?", "a": " 2 ", "how": "add", "grade": 3}, {"answer_format": "plain", "solution_field": "how"}),
        ({"q": "1 + 1?", "a": "add\n#### 2", "grade": "3"}, {"answer_format": "hash", "solution_field": ""}),
        ({"q": "1 + 1?", "a": "add\n#### 2", "grade": "3"}, {"answer_format": "hash", "solution_field": "a"}),
        ({"q": "1 + 1?", "a": "#### 2", "how": "add", "grade": 3}, {"answer_format": "hash", "solution_field": "how"}),
    ],
)
def test_columns_may_have_other_names_and_formats(tmp_path, columns, settings: dict[str, Any]):
    names: dict[str, Any] = {"question_field": "q", "answer_field": "a", "level_field": "grade", "type_field": ""}
    data = write(tmp_path / "set.jsonl", [columns])
    [found], _ = read_records(SplitSettings(data, tmp_path / "out", **names, **settings))
    assert (found.problem, found.solution, found.answer, found.level) == ("1 + 1?", "add", "2", "3")
    assert found.type is None


def test_all_files_of_a_directory_are_split_anew(tmp_path):
    train = [row(f"problem {number}", f"Level {1 + number % 2}") for number in range(30)]
    write(tmp_path / "data" / "train.jsonl", train)
    write(tmp_path / "data" / "test.jsonl", [row(f"Problem: {number}.") for number in range(10)])
    (tmp_path / "data" / "README.md").write_text("not data")
    split = prepare_split(SplitSettings(str(tmp_path / "data"), tmp_path / "out"))
    check_nothing_is_shared(split.train, split.test)
    assert len(split.train + split.test) == 40
    assert {r.source for r in split.train} == {"data/train.jsonl", "data/test.jsonl"}
    only = prepare_split(SplitSettings(str(tmp_path / "data"), tmp_path / "only", split="train[:20]"))
    assert len(only.train + only.test) == 20


def test_the_files_can_be_read_by_a_recipe_and_say_how_they_were_made(tmp_path):
    rows = [row(f"p{number}", f"Level {1 + number % 5}", type="AB"[number % 2]) for number in range(100)]
    name = write(tmp_path / "set.jsonl", [*rows, row("last", "Level 6"), row("no", "Level ?")])
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
    rows = [row(f"p{number}", f"Level {1 + number % 3}") for number in range(60)]
    prepare_split(SplitSettings(write(tmp_path / "a" / "set.jsonl", rows), tmp_path / "x"))
    prepare_split(SplitSettings(write(tmp_path / "b" / "set.jsonl", rows[::-1]), tmp_path / "y"))
    for name in ("train.parquet", "test.parquet"):
        assert sha256(tmp_path / "x" / name) == sha256(tmp_path / "y" / name)


def test_a_cap_keeps_as_many_of_each_level(tmp_path):
    rows = [row(f"p{number}", f"Level {1 + number % 2}") for number in range(60)]
    settings = SplitSettings(write(tmp_path / "set.jsonl", rows), tmp_path / "out", max_per_level=10)
    split = prepare_split(settings)
    assert split.counts(lambda r: r.level) == {
        "Level 1": {"train": 8, "test": 2},
        "Level 2": {"train": 8, "test": 2},
    }
    assert split.left_out.counts == {"beyond --max-per-level": 40}


def test_force_replaces_a_split_and_leaves_other_files(tmp_path):
    settings = SplitSettings(write(tmp_path / "set.jsonl", [row(f"p{n}") for n in range(20)]), tmp_path / "out")
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
def test_what_fails_while_writing_leaves_everything_as_it_was(tmp_path, monkeypatch, existing):
    name = write(tmp_path / "set.jsonl", [row(f"p{n}") for n in range(20)])
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
    name, out = write(tmp_path / "set.jsonl", [row(f"p{n}") for n in range(20)]), tmp_path / "out"
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
    name = write(tmp_path / "data" / "train.jsonl", [row(f"p{n}") for n in range(20)])
    for data in (name, str(tmp_path / "data")):
        with pytest.raises(DataError, match="holds the data"):
            prepare_split(SplitSettings(data, tmp_path / "data", force=True))


@pytest.mark.parametrize(
    ("rows", "settings", "error", "message"),
    [
        ([row("a")], {}, DataError, "of 1 usable rows none can be held out"),
        ([row("a"), row("A", solution=r"\boxed{2}")], {}, DataError, "of 2 usable rows none can be held out"),
        ([row("a", "Level ?")], {}, DataError, r"has none: 1 without a usable level \(set.jsonl row 1\)"),
        ([row("a")], {"test_fraction": 1.0}, ConfigError, "--test-fraction must be above 0 and below 1, got 1"),
        ([row("a")], {"test_fraction": float("nan")}, ConfigError, "got nan"),
        ([row("a")], {"max_per_level": 0}, ConfigError, "--max-per-level must be at least 1, got 0"),
        ([row("a")], {"level_field": ""}, ConfigError, "--level-field must name a column"),
        ([row("a")], {"level_field": "grade"}, DataError, "no field grade: it has problem, level, .*--level-field"),
        ([row("a")], {"data": "embedded:algebra"}, DataError, "must be embedded:arithmetic"),
        ([row("a")], {"data": "embedded:arithmetic", "split": "train"}, ConfigError, "--split and --subset"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, rows, settings, error, message):
    name = write(tmp_path / "set.jsonl", rows)
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
        for found in getattr(split, side):
            strata[found.level].append(side)
            strata[found.level, found.type].append(side)
    assert len(strata) == 5 + 5 * 7
    for stratum, sides in strata.items():
        assert abs(sides.count("test") - 0.2 * len(sides)) < (1 if isinstance(stratum, str) else 1.5)
    test = load_problems(DataConfig(name=str(tmp_path / "out"), fields=FIELDS), "eval")
    assert len(test) == len(split.test) == 2499
    assert len(select_problems(test, ProblemFilter(levels=["Level 1"]))) == 200
