"""Grading a whole file: what is written, and what is left when something fails."""

import json
import tempfile
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.grading import tables
from pipeline.grading.chunks import GradeSettings
from pipeline.grading.processes import over_processes
from pipeline.grading.run import check_paths, default_output, grade_file
from pipeline.grading.tally import Tally
from pipeline.runs.records import read_jsonl
from tests.support.data import write_jsonl, write_parquet
from tests.support.grading import here
from tests.support.properties import examples


def read_lines(path: Path) -> list[dict]:
    return read_jsonl(path)


def grade(path: Path, **settings) -> tuple[Tally, Path]:
    output = default_output(path)
    return grade_file(path, output, GradeSettings(**settings), here), output


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_parquet_file_keeps_its_columns_and_gets_new_ones(tmp_path):
    table = pa.table(
        {
            "text": ["<answer>7</answer>", r"\boxed{0.5}", None, "<answer>3</answer>", "<answer>2</answer>"],
            "answer": pa.array([Decimal("7"), Decimal("0.50"), Decimal("1"), Decimal("4"), None], pa.decimal128(5, 2)),
            "more": [[1], [2, 3], None, [], [4]],
        }
    ).replace_schema_metadata({"of": "the file"})
    pq.write_table(table, tmp_path / "c.parquet")
    tally, output = grade(tmp_path / "c.parquet", completion_field="text", gold_field="answer", all_methods=True)
    graded = pq.read_table(output)
    assert graded.select(table.column_names).equals(table) and graded.schema.metadata[b"of"] == b"the file"
    new = ["outcome", "method", "graded_answer", "strict", "symbolic", "numeric"]  # answer was taken
    assert graded.column_names == [*table.column_names, *new]
    assert graded["outcome"].to_pylist() == ["correct", "correct", "unparsed", "incorrect", "bad_gold"]
    assert graded["symbolic"].to_pylist()[:4] == [True, True, None, False]
    assert graded.schema.field("strict").type == pa.bool_()
    assert tally.outcomes.total() == 5 and tally.examples["bad_gold"][0].number == 5


def test_lines_are_kept_byte_for_byte(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"completion":"\\boxed{\\\\sqrt2}" , "gold":"\xe2\x88\x9a2", "n": 1.10, "big": 1e400}\r\n',
        b"  \n",
        b'{"gold": "\\ud800", "completion": "<answer>\\ud800</answer>"}',
    ]
    (tmp_path / "c.jsonl").write_bytes(b"".join(lines))
    _, output = grade(tmp_path / "c.jsonl")
    first, second = output.read_bytes().splitlines()
    assert first.startswith(lines[0].rstrip()[:-1] + b", ")
    assert second.startswith(lines[2][:-1] + b', "outcome": ') and json.loads(second)["answer"] == "\ud800"


def test_the_first_row_of_a_jsonl_file_names_the_new_fields_of_all(tmp_path):
    pair = {"completion": "<answer>7</answer>", "gold": "7"}
    path = Path(write_jsonl(tmp_path / "a.jsonl", pair | {"outcome": "mine"}, pair, pair | {"outcome": None}))
    _, output = grade(path)
    assert [row["graded_outcome"] for row in read_lines(output)] == ["correct"] * 3
    assert [row.get("outcome", "none") for row in read_lines(output)] == ["mine", "none", None]
    path = Path(write_jsonl(tmp_path / "b.jsonl", pair, pair, pair | {"method": "mine"}))
    with pytest.raises(DataError, match=r"^line 3 must not have a field 'method': the first row has none"):
        grade(path)
    assert not default_output(path).exists()


values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.lists(st.integers(), max_size=2))
others = st.dictionaries(st.one_of(st.text(max_size=6), st.sampled_from(["outcome", "answer"])), values, max_size=3)
rows_of_a_file = st.lists(st.tuples(others, st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12)


@examples()
@given(rows_of_a_file, st.integers(1, 200), st.booleans())
def test_any_jsonl_file_comes_back_with_verdicts_whatever_its_chunks(rows, chunk_bytes, escapes):
    sources = [other | {"completion": f"<answer>{a}</answer>", "gold": str(gold)} for other, a, gold in rows]
    sources = [row for row in sources if not row.keys() & {"outcome", "answer"} - sources[0].keys()]
    lines = [json.dumps(row, ensure_ascii=escapes).encode(errors="replace") for row in sources]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK_BYTES", chunk_bytes)
        path = Path(folder) / "c.jsonl"
        path.write_bytes(b"\n".join(lines))
        tally, output = grade(path)
        graded = output.read_bytes().split(b"\n")[:-1]
    assert [new.startswith(old[:-1] + b", ") for new, old in zip(graded, lines, strict=True)] == [True] * len(lines)
    name = "graded_outcome" if "outcome" in sources[0] else "outcome"
    expected = ["correct" if row["completion"] == f"<answer>{row['gold']}</answer>" else "incorrect" for row in sources]
    assert [json.loads(line)[name] for line in graded] == expected
    assert (tally.outcomes["correct"], tally.outcomes.total()) == (expected.count("correct"), len(sources))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_order_and_numbers_hold_over_chunks_and_processes(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(tables, "CHUNK_ROWS", 20)
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 4000)
    rows = [{"completion": f"<answer>{n}</answer>", "gold": str(n) if n % 3 else "?"} for n in range(300)]
    path = tmp_path / f"c.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, *rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    seen: list[tuple[int, float]] = []
    output = tmp_path / f"out.{suffix}"
    spread = partial(over_processes, num_workers=2)
    tally = grade_file(path, output, GradeSettings(), spread, lambda num_rows, frac: seen.append((num_rows, frac)))
    graded = read_lines(output) if suffix == "jsonl" else pq.read_table(output).to_pylist()
    assert [(row["completion"], row["gold"]) for row in graded] == [(row["completion"], row["gold"]) for row in rows]
    assert [row["outcome"] for row in graded] == ["correct" if n % 3 else "bad_gold" for n in range(300)]
    assert tally.outcomes == {"correct": 200, "bad_gold": 100} and tally.methods == {"exact": 200}
    assert [row.number for row in tally.examples["bad_gold"]] == [1, 4, 7]
    assert len(seen) > 5 and seen == sorted(seen) and seen[-1] == (300, 1.0)
    if suffix == "parquet":
        assert 1 < pq.ParquetFile(output).num_row_groups < len(seen)


def test_a_corrupt_parquet_file_is_named(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.Table.from_pylist([{"completion": f"{n}", "gold": "1"} for n in range(5000)]), path)
    data = path.read_bytes()
    for broken in (b"", b"garbage", data[:-8], data[:100] + bytes(2000) + data[2100:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"c\.parquet cannot be read as parquet"):
            grade(path)
        assert names(tmp_path) == ["c.parquet"]


def test_an_existing_output_is_kept_unless_forced(tmp_path):
    path = Path(write_jsonl(tmp_path / "c.jsonl"))
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(DataError, match="--force"):
        check_paths(path, output, overwrite=False)
    check_paths(path, output, overwrite=True)
    with pytest.raises(DataError, match=r"must be a \.jsonl or \.parquet file, got suffix \.csv"):
        check_paths(tmp_path / "c.csv", output, overwrite=False)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    path = Path(write_jsonl(tmp_path / "c.jsonl", {"completion": "7", "gold": "7"}))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables._JsonlSink, "write", fail)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        grade(path)
    assert names(tmp_path) == ["c.jsonl"]


def test_golds_are_read_as_those_of_training_are(tmp_path):
    """Large integers keep their digits, whole floats are integers, and a list of one is its item."""
    golds = [str(2**80), "10.0", "1e3", "NaN", '["2"]', '"2024-01-01"']
    answers = [str(2**80), "10", "1000", "7", "2", "2024-01-01"]
    lines = [
        f'{{"completion": "<answer>{answer}</answer>", "reward_model": {{"gold": {gold}}}}}\n'
        for answer, gold in zip(answers, golds, strict=True)
    ]
    (tmp_path / "c.jsonl").write_text("".join(lines))
    tally, output = grade(tmp_path / "c.jsonl", gold_field="reward_model.gold")
    assert [row["outcome"] for row in read_lines(output)] == ["correct"] * 3 + ["bad_gold"] + ["correct"] * 2
    assert tally.methods == {"exact": 5}


def test_labels_bytes_and_small_floats_of_parquet_are_read_as_those_of_training_are(tmp_path):
    columns = {"completion": [f"<answer>{x}</answer>" for x in ("easy", "2")], "gold": [0, None]}
    features = {"gold": {"_type": "ClassLabel", "names": ["easy"]}}
    tally, _ = grade(Path(write_parquet(tmp_path / "a.parquet", columns, features)))
    assert tally.outcomes == {"correct": 1, "bad_gold": 1}
    for name, column in (("b", pa.array([0.1, 3.0], pa.float32())), ("c", pa.array([b"0.1", b"3"]))):
        columns = {"completion": ["<answer>0.1</answer>", "<answer>3</answer>"], "gold": column}
        assert grade(Path(write_parquet(tmp_path / f"{name}.parquet", columns)))[0].methods == {"exact": 2}
    columns = {"completion": ["7"], "gold": [["7", "8"]]}
    with pytest.raises(DataError, match=r"^row 1: field gold must be one text or number, got a list of 2\.$"):
        grade(Path(write_parquet(tmp_path / "d.parquet", columns)))


@pytest.mark.parametrize("digits", ["1208925819614629174706176", "-" + "7" * 400, "9" * 5000])
def test_an_integer_of_json_keeps_every_digit(digits, tmp_path):
    same, other = digits, digits[:-1] + "0"
    (tmp_path / "c.jsonl").write_text(
        f'{{"completion": "so \\\\boxed{{{same}}}", "gold": {same}}}\n'
        f'{{"completion": {other}, "gold": {same}}}\n'
        f'{{"completion": {same}, "gold": {same}}}\n'
    )
    _, output = grade(tmp_path / "c.jsonl")
    rows = [json.loads(line, parse_int=str) for line in output.read_text().split("\n") if line]
    assert [row["outcome"] == "correct" for row in rows] == [True, False, True]


CASES = [
    ("答案是：12。", "12"),
    ("最终答案是：$12$。", "12"),
    ("答えは「12」です。", "12"),
    ("The answer is：12", "12"),
    ("故选：B", "B"),
    (r"So it is \boxed{\sqrt{\frac{1}{k}}}.", r"\frac{1}{\sqrt{k}}"),
    (r"So it is \boxed{2\ln x}.", r"\ln(x^2)"),
    (r"So it is \boxed{C}.", r"\textbf{(C)}\ \frac{1}{2}"),
    (r"So it is \boxed{x≡7 (mod 13)}.", r"x \equiv 7 \pmod{13}"),
    (r"So it is \boxed{672}.", r"\[ N \equiv 672 \pmod{1000} \]"),
    (r"So it is \boxed{12,34,567}.", 1234567),
    ("The answer is 8<|im_end|>", 8),
    ("√2", r"\sqrt{2}"),
]


def test_languages_notations_and_bare_answers_are_read_from_a_file_as_they_are_anywhere(tmp_path):
    rows = [{"completion": completion, "gold": gold} for completion, gold in CASES]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    tally, _ = grade(tmp_path / "c.jsonl")
    assert tally.outcomes == {"correct": len(CASES)}
