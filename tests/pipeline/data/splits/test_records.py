"""Usable and unusable rows."""

from typing import Any

import pytest

from pipeline.data.splits import SplitSettings
from pipeline.data.splits.records import is_usable_level, read_records
from tests.support.data import math_row, write_jsonl


def test_unusable_rows_are_left_out_and_counted_with_their_row_numbers(tmp_path):
    rows = [
        math_row("a"),
        math_row("b", "Level ?"),
        math_row("c", ""),
        math_row("d", None),
        math_row("e", "Level 2", None),
        math_row("f"),
    ]
    rows += [
        math_row("g", solution="none"),
        math_row("h", solution=r"\boxed{}"),
        math_row(" "),
        math_row(" a\n"),
        math_row("a", "Level 5"),
    ]
    rows += [math_row("i", "level ?"), math_row("a", solution=r"\boxed{2}"), math_row("A")]
    records, left_out = read_records(SplitSettings(write_jsonl(tmp_path / "set.jsonl", *rows), tmp_path / "out"))
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
def test_usable_levels(level):
    assert is_usable_level(level)


@pytest.mark.parametrize("level", ["", "Level ?", "?", "Level", "nan", "None", "N/A", "level: unknown"])
def test_unusable_levels(level):
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
    data = write_jsonl(tmp_path / "set.jsonl", *[columns])
    [record], _ = read_records(SplitSettings(data, tmp_path / "out", **names, **settings))
    assert (record.problem, record.solution, record.answer, record.level) == ("1 + 1?", "add", "2", "3")
    assert record.type is None
