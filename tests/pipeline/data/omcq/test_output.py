import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.data.omcq import parts
from pipeline.data.omcq.convert import ConvertSettings
from pipeline.data.omcq.output import Converted, OmcqSettings, convert_omcq
from pipeline.errors import ConfigError, DataError
from tests.support.data import write_jsonl


def convert_files(sources: Sequence[Path], settings: ConvertSettings) -> Iterator[pa.RecordBatch]:
    return chain.from_iterable(parts.converted(part, settings) for part in parts.file_parts(sources))


def good(number: int) -> dict[str, object]:
    return {"target": [{"question": f"{number}?", "options": "A:x,B:y", "correct_answer": "A"}]}


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, ...]:
    """20 good rows in two files, a blank line, and nine bad rows."""
    first, second = tmp_path / "in" / "a.jsonl", tmp_path / "in" / "b.jsonl"
    write_jsonl(first, *(good(number) for number in range(10)), {"target": []})
    write_jsonl(second, *(row for number in range(10, 17) for row in ({"target": 1}, good(number))))
    with second.open("a") as file:
        file.write("\n" + "".join(json.dumps(good(number)) + "\n" for number in range(17, 20)) + '{"tar')
    return first, second


def converted(sources: tuple[Path, ...], output: Path, **settings: object) -> Converted:
    return convert_omcq(OmcqSettings(sources, output, **settings), convert_files)  # type: ignore[arg-type]


def questions(output: Path) -> list[str]:
    rows = map(json.loads, output.read_text().splitlines())
    return [row["conversations"][0]["content"].split("\n")[0] for row in rows]


def test_rows_stay_in_order_and_every_other_row_is_counted_and_shown(sources, tmp_path):
    counts = converted(sources, tmp_path / "out.jsonl")
    assert questions(tmp_path / "out.jsonl") == [f"{number}?" for number in range(20)]
    expected = {"target is empty": 1, "target is not a list": 7, "cut off at the end of the file": 1}
    assert counts.num_converted == 20 and counts.rejected == expected
    shown = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").read_text().splitlines()]
    assert len(shown) == 1 + 5 + 1  # at most five of a reason
    assert shown[0] == {
        "reason": "target is empty", "detail": "", "file": "a.jsonl", "row": 11, "text": '{"target": []}'
    }  # fmt: skip
    assert [row["row"] for row in shown[1:]] == [1, 3, 5, 7, 9, 19]  # the blank line is line 15
    summary = json.loads((tmp_path / "out.json").read_text())
    assert (summary["num_converted"], summary["num_rejected"], summary["rejected"]) == (20, 9, expected)
    assert len(summary["sources"][0]["digest"]) == 16


@pytest.mark.parametrize(("limit", "num_rejected"), [(1, 0), (10, 0), (11, 2), (12, 3), (100, 9)])
def test_rows_after_the_last_sample_are_neither_read_nor_counted(sources, tmp_path, limit, num_rejected):
    counts = converted(sources, tmp_path / "out.jsonl", max_samples=limit)
    assert counts.num_converted == min(limit, 20) == len(questions(tmp_path / "out.jsonl"))
    assert counts.rejected.total() == num_rejected


def test_a_failure_leaves_nothing_that_looks_whole(sources, tmp_path):
    def failing(*_: object):
        yield from chain.from_iterable([list(convert_files(sources, ConvertSettings()))])
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        convert_omcq(OmcqSettings(sources, tmp_path / "out.jsonl"), failing)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


ERRORS = {
    "suffix": ({"output": Path("a.json")}, ConfigError, r"--output must be a \.jsonl file, got a\.json"),
    "samples": ({"max_samples": 0}, ConfigError, "--max-samples must be at least 1, got 0"),
    "characters": ({"convert": ConvertSettings(max_chars=0)}, ConfigError, "--max-chars must be at least 1, got 0"),
    "itself": ({"output": Path("in/a.jsonl"), "force": True}, ConfigError, "--output must leave the sources alone"),
    "there": ({"output": Path("there.jsonl")}, DataError, r"output there\.jsonl exists\. .* --force"),
    "below a file": ({"output": Path("there.jsonl/a.jsonl")}, DataError, "cannot be written: Not a directory"),
    "no source": ({"sources": (Path("none.jsonl"),)}, DataError, r"source none\.jsonl cannot be read"),
}


@pytest.mark.parametrize(("changes", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_converted_is_an_error(sources, tmp_path, monkeypatch, changes, kind, message):
    monkeypatch.chdir(tmp_path)
    Path("there.jsonl").write_text("mine")
    settings = {"sources": sources, "output": Path("out.jsonl"), **changes}
    with pytest.raises(kind, match=message):
        convert_omcq(OmcqSettings(**settings), convert_files)
    assert Path("there.jsonl").read_text() == "mine" and not Path("out.jsonl").exists()


def test_an_output_is_replaced_by_force(sources, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    converted(sources, tmp_path / "out.jsonl", force=True)
    assert len(questions(tmp_path / "out.jsonl")) == 20


def test_without_a_single_good_row_there_is_no_output_but_reasons(tmp_path):
    source = Path(write_jsonl(tmp_path / "a.jsonl", {"a": 1}))
    with pytest.raises(
        DataError, match=r"must have rows that can be converted, got none of 1: see .*out\.rejected\.jsonl"
    ):
        converted((source,), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists() and (tmp_path / "out.rejected.jsonl").exists()


@pytest.mark.parametrize("name", ["out.json", "out.rejected.jsonl"])
def test_files_beside_the_output_are_not_replaced_unasked(sources, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=f"output .*{name} exists"):
        converted(sources, tmp_path / "out.jsonl")
    assert (tmp_path / name).read_text() == "mine"
    assert converted(sources, tmp_path / "out.jsonl", force=True).num_converted == 20
