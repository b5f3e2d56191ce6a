import json

import pytest

from pipeline.files import write_json, write_jsonl


def test_json_files_are_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with path.open() as reader:
        write_json(path, {"a": 2})
        assert json.load(reader) == {"a": 1}
    assert json.loads(path.read_text()) == {"a": 2}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 2}


def test_hostile_text_can_be_written(tmp_path):
    rows = [{"text": "lone \ud800 surrogate, \u2028 separator, \x00 and é"}, {"text": "b"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == [rows[0]["text"].replace("\ud800", "?"), "b"]
    write_json(tmp_path / "a.json", rows[0])
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
