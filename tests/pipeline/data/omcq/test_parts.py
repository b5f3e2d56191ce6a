import gzip
import json
from itertools import chain
from pathlib import Path

import pytest

from pipeline.data.omcq import parts
from pipeline.data.omcq.convert import ConvertSettings
from pipeline.data.omcq.parts import Part, RawRow, converted, file_parts, part_rows
from pipeline.errors import DataError


def rows_of(path: Path, part_bytes: int = parts.PART_BYTES) -> list[RawRow]:
    return list(chain.from_iterable(map(part_rows, file_parts([path], part_bytes))))


def read(path: Path) -> list[bytes | str]:
    """Each row, or the reason why it cannot be had."""
    return [row.rejected.reason if row.rejected else row.line.strip() for row in rows_of(path)]


@pytest.mark.parametrize("part_bytes", [1, 2, 3, 7, 8, 9, 100])
def test_parts_of_any_size_hold_each_line_once_and_in_order(tmp_path, part_bytes):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a":1}\n{"bb":2}\r\n\n{"c":3}\n[4]')
    assert [row.line for row in rows_of(file, part_bytes)] == [
        b'{"a":1}\n',
        b'{"bb":2}\r\n',
        b"\n",
        b'{"c":3}\n',
        b"[4]",
    ]


def test_long_lines_are_skipped_without_reading_them_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MAX_ROW_BYTES", 10)
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"1\n" + b"2" * 35 + b"\n" + b"3" * 10 + b"\n4\n" + b"5" * 11)
    assert read(file) == [b"1", "the row is too long", b"3" * 10, b"4", "the row is too long"]
    assert max(len(row.line) for row in rows_of(file)) == 11


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n \n\n')
    [batch] = converted(file_parts([file])[0], ConvertSettings())
    assert batch["reason"].to_pylist() == ["no target", None, None] and batch["text"].null_count == 3


ARRAYS = {
    "one line": (b'[{"a": 1}, {"b": [2, {}]},3]', [b'{"a": 1}', b'{"b": [2, {}]}', b"3"]),
    "byte order mark": (b"\xef\xbb\xbf [1]\n", [b"1"]),
    "empty": (b" [ ] ", []),
    "comma at the end": (b"[1, 2,]", [b"1", b"2"]),
    "broken item on lines": (b'[\n {"a": },\n {"b":\n  {"c": 1}},\n {"d" 1},\n {"e": 2}\n]',
                             ["not JSON", b'{"b":\n  {"c": 1}}', "not JSON", b'{"e": 2}']),
    "broken item in one line": (b'[{"a": 1}, {"b" 2}, {"c": 3}]', [b'{"a": 1}', "cut off at the end of the file"]),
    "cut off in an item": (b'[{"a": 1},\n{"b', [b'{"a": 1}', "cut off at the end of the file"]),
    "cut off between items": (b'[{"a": 1},\n', [b'{"a": 1}', "cut off at the end of the file"]),
    "cut off before a comma": (b'[{"a": 1}\n', [b'{"a": 1}', "cut off at the end of the file"]),
    "no comma": (b"[1 2]", [b"1", "the rest of the array cannot be read"]),
    "text behind": (b"[1] 2", [b"1", "the rest of the array cannot be read"]),
    "not UTF-8": (b'["\xff", 1]', [b'"\xff"', b"1"]),
}  # fmt: skip


@pytest.mark.parametrize("piece", [1, 3, 2**16])
@pytest.mark.parametrize(("content", "expected"), ARRAYS.values(), ids=ARRAYS)
def test_an_array_is_read_item_by_item(tmp_path, monkeypatch, piece, content, expected):
    monkeypatch.setattr(parts, "_PIECE_BYTES", piece)
    file = tmp_path / "a.json"
    file.write_bytes(content)
    assert read(file) == expected
    archive = tmp_path / "a.json.gz"
    archive.write_bytes(gzip.compress(content))
    assert read(archive) == expected


def test_a_json_file_of_rows_and_an_archive_of_rows_are_read_by_lines(tmp_path):
    for name, content in (("a.json", b'{"a": 1}\n{"b": 2}\n'), ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n{"b": 2}\n'))):
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name) == [b'{"a": 1}', b'{"b": 2}']


def test_a_broken_archive_is_one_row_that_is_rejected(tmp_path):
    whole = gzip.compress("".join(f"[{number}]\n" for number in range(10_000)).encode())
    for name, content in (
        ("cut.jsonl.gz", whole[:-20]),
        ("none.jsonl.gz", b"no archive"),
        ("none.json.gz", b"nothing"),
    ):
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name)[-1] == "the rest of the archive cannot be read"


def test_results_say_which_source_a_row_is_of(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps({"name": name}) + "\n")
    batches = chain.from_iterable(
        converted(part, ConvertSettings()) for part in file_parts([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    )
    assert [batch["source"].to_pylist() for batch in batches] == [[0], [1]]


def test_sources_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.txt must be a file \.jsonl, \.json, .*, got \.txt"):
        file_parts([tmp_path / "a.txt"])
    with pytest.raises(DataError, match=r"a\.jsonl cannot be read: No such file"):
        file_parts([tmp_path / "a.jsonl"])
    (tmp_path / "empty.jsonl").touch()
    assert file_parts([tmp_path / "empty.jsonl"]) == []
    assert list(part_rows(Part(0, str(tmp_path / "empty.jsonl"), 0, 0))) == []
