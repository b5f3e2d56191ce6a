"""Fields as texts: every digit as in the file, and nothing that is not a text or a number."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.fields import ABSENT, as_text, lookup, parse_line, stored_features, table_columns
from tests.support.properties import examples

NAN = float("nan")
DIGITS = "7" * 5000
"""More digits than Python turns into an int."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" a\n", "a"),
        ("007", "007"),
        ("1.50", "1.50"),
        ("nan", "nan"),
        (7, "7"),
        (2**80, "1208925819614629174706176"),
        (True, "True"),
        (10.0, "10"),
        (-0.0, "0"),
        (2.0**80, "1208925819614629200000000"),
        (1e20, "100000000000000000000"),
        (2.5, "2.5"),
        (1e-7, "0.0000001"),
        (float("-inf"), "-inf"),
        (Decimal("7.00"), "7"),
        (Decimal("0.50"), "0.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E+999999999"), "1E+999999999"),
        (Decimal("1E-999999999"), "1E-999999999"),
        (date(2024, 1, 1), "2024-01-01"),
        (datetime(2024, 1, 1), "2024-01-01"),
        (datetime(2024, 1, 1, 10, 30), "2024-01-01 10:30:00"),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01 00:00:00+00:00"),
        (time(10, 30), "10:30:00"),
        ("é".encode(), "é"),
        (["2"], "2"),
        ([[2.0]], "2"),
    ],
)
def test_a_field_is_the_text_that_is_meant(value, text):
    assert as_text(value, "answer", "row 1") == text


@pytest.mark.parametrize("value", [None, ABSENT, NAN, "", " \n", [], [None], [[]], [NAN], b""])
def test_a_missing_field_is_empty_text(value):
    assert as_text(value, "answer", "row 1") == ""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["2", "-2"], "got a list of 2"),
        ([["3", "4"]], "got a list of 2"),
        ({"style": "rule", "gold": "2"}, r"got a struct\. Name one of its fields: answer\.style, answer\.gold"),
        ([{"gold": "2"}], "got a struct"),
        ({}, "it has none"),
        (b"caf\xe9", "UTF-8, got byte 0xe9"),
        (object(), "got object"),
    ],
)
def test_anything_else_is_refused_with_its_column_and_row(value, message):
    with pytest.raises(DataError, match=rf"^a\.jsonl line 7: field answer must be .*{message}"):
        as_text(value, "answer", "a.jsonl line 7")


@given(st.integers())
@examples()
def test_integers_of_any_size_keep_their_digits(number):
    assert as_text(parse_line(b'{"a": %d}' % number, "line 1")["a"], "a", "line 1") == str(number)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (DIGITS, DIGITS),
        ("10.0", "10"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("1E+23", "100000000000000000000000"),  # 99999999999999991611392 as a float
        ("0.1000000000000000055", "0.1000000000000000055"),
        ("1.50", "1.5"),
        ("1e-7", "0.0000001"),
        ("1e400", "1" + "0" * 400),  # infinite as a float
        ("NaN", ""),
        ("Infinity", "inf"),
        ("null", ""),
        ('"2024-01-01"', "2024-01-01"),
        ('"2024-01-01T00:00:00"', "2024-01-01T00:00:00"),
        ("true", "True"),
    ],
)
def test_json_values_are_read_as_they_are_written(written, text):
    assert as_text(parse_line(f'{{"a": {written}}}'.encode(), "line 1")["a"], "a", "line 1") == text


@pytest.mark.parametrize("line", [b'\xef\xbb\xbf{"a": "1"}\n', b'{"a": "1"}\r\n', b' \t{"a": "1"}'])
def test_byte_order_marks_and_line_ends_are_no_part_of_a_line(line):
    assert parse_line(line, "line 1") == {"a": "1"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"q": "caf\xe9?"}', r"must be UTF-8, got byte 0xe9 at column 11\. Convert the file to UTF-8\."),
        ('{"q": 1}'.encode("utf-16"), "must be UTF-8, got byte 0xff at column 1"),
        (b'{"q": "cut sh', "must be a JSON object: Unterminated string starting at at column 7"),
        (b'{"q": 1} {"q": 2}', "Extra data at column 10"),
        (b'[{"q": 1}]', r"got a list\. Write one object per line"),
        (b"7", "got a number"),
        (b"null", "got null"),
        (b'{"answer": 1, "answer": 2}', "it has the key 'answer' twice"),
        (b'{"q": 1e99999999999999999999}', "must hold numbers that fit into memory"),
        (b'{"q": ' + b"[" * 100_000, "must be a JSON object"),
    ],
)
def test_a_line_that_is_no_object_is_a_one_line_error_with_its_place(line, message):
    with pytest.raises(DataError, match=rf"^a\.jsonl line 3 .*{message}") as caught:
        parse_line(line, "a.jsonl line 3")
    assert "\n" not in str(caught.value)


def test_a_dotted_name_is_a_column_or_else_a_field_inside_one():
    row = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "n": None}
    names = ["a.b", "a.c.d", "n", "n.x", "a.x", "x.y", "a.b.c"]
    assert [lookup(row, name) for name in names] == [1, 3, None, None, ABSENT, ABSENT, ABSENT]


LABELS = {"_type": "ClassLabel", "names": ["easy", "hard"]}


@pytest.mark.parametrize(
    ("array", "feature", "texts"),
    [
        (pa.array([0.1, 2.0, NAN, None, 1e20], pa.float32()), None, ["0.1", "2", "", "", "100000000000000000000"]),
        (pa.array([0.1, 2.0, 65504.0], pa.float16()), None, ["0.1", "2", "65504"]),
        (pa.array([2.0**27, -(2.0**53), 1e23], pa.float32()), None, ["134217728", "-9007199254740992", f"1{'0' * 23}"]),
        (pa.array([0.1, 1e16, NAN], pa.float64()), None, ["0.1", "10000000000000000", ""]),
        (pa.array([1e23, 2.0**53]), None, [f"1{'0' * 23}", "9007199254740992"]),
        (pa.array([2**63 - 1, -1], pa.int64()), None, ["9223372036854775807", "-1"]),
        (pa.array([2**64 - 1], pa.uint64()), None, ["18446744073709551615"]),
        (pa.array([Decimal("1.50"), Decimal("7.00")], pa.decimal128(5, 2)), None, ["1.5", "7"]),
        (pa.array([datetime(2024, 1, 1)], pa.timestamp("ns")), None, ["2024-01-01"]),
        (pa.array([date(2024, 1, 1)], pa.date32()), None, ["2024-01-01"]),
        (pa.array(["a", None], pa.large_string()), None, ["a", ""]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), None, ["a", "b", "a"]),
        (pa.array([0.1], pa.float32()).dictionary_encode(), None, ["0.1"]),
        (pa.array([b"2", None]), None, ["2", ""]),
        (pa.array([[0.1], None], pa.list_(pa.float32())), None, ["0.1", ""]),
        (pa.array([1, 0, None, -1], pa.int64()), LABELS, ["hard", "easy", "", ""]),
        (pa.array([[1]], pa.list_(pa.int64())), {"_type": "List", "feature": LABELS}, ["hard"]),
    ],
)
def test_arrow_values_are_the_texts_that_are_meant(array, feature, texts):
    schema = pa.schema([("x", array.type)])
    if feature:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": {"x": feature}}})})
    batch = pa.record_batch([array], schema=schema)
    [values] = table_columns(batch, ["x"], stored_features(batch.schema, "a.parquet"), "rows")
    assert [as_text(value, "x", "row 1") for value in values] == texts


def test_labels_and_small_floats_inside_structs_are_read_too():
    array = pa.array([{"level": 1, "x": 0.1, "n": 3}, None], pa.struct({"level": pa.int8(), "x": "float", "n": "int8"}))
    [values] = table_columns(pa.record_batch({"s": array}), ["s"], {"s": {"level": LABELS}}, "rows")
    assert values == [{"level": "hard", "x": 0.1, "n": 3}, None]


def test_text_that_is_not_utf8_and_columns_of_one_name_are_refused():
    wrong = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    with pytest.raises(DataError, match=r"^rows from 1 on: field x must be UTF-8"):
        table_columns(pa.record_batch({"x": wrong}), ["x"], {}, "rows from 1 on")
    twice = pa.record_batch([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(DataError, match="field x must be one column, got 2"):
        table_columns(twice, ["x"], {}, "rows")


@pytest.mark.parametrize(
    "metadata", ["not JSON", "[1]", "7", '{"info": [1]}', '{"info": {"features": ["a"]}}', "[" * 100_000]
)
def test_metadata_that_is_no_object_is_a_user_error(metadata):
    schema = pa.schema([("x", pa.int64())]).with_metadata({"huggingface": metadata})
    with pytest.raises(DataError, match=r"^a\.parquet: the metadata 'huggingface' must be a JSON object"):
        stored_features(schema, "a.parquet")


@pytest.mark.parametrize("type", [pa.timestamp("s"), pa.duration("s"), pa.timestamp("us", "UTC")])
def test_dates_and_durations_beyond_python_are_a_user_error(type):
    batch = pa.record_batch({"x": pa.array([2**62], pa.int64()).cast(type)})
    with pytest.raises(DataError, match=r"^rows: field x must hold dates of the years 1 to 9999") as caught:
        table_columns(batch, ["x"], {}, "rows")
    assert "\n" not in str(caught.value)
