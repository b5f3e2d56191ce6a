import json

import pytest

from pipeline.files import safe_name, write_json, write_jsonl


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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("level_Level 5", "level_Level5"),  # as in old runs
        ("level_a/b: 1%", "level_ab1"),
        ("level_基础", "level_基础"),
        ("level_Уровень 2", "level_Уровень2"),
        ("level_कठिन", "level_कठिन"),  # with vowel signs, which are no letters
        ("level_e\u0301", "level_\u00e9"),
        ("..", ".."),
    ],
)
def test_names_keep_their_letters_in_every_script(text, name):
    assert safe_name(text) == name


def test_texts_with_other_signs_or_too_long_have_names_of_their_own(tmp_path):
    texts = ["难★", "难★★", "难", "难/易", "基" * 67, "基" * 68, "x" * 201, "x" * 202, "\ud800", "", "★"]
    names = [safe_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert names[0].startswith("难-") and names[4].startswith("基" * 63 + "-")
    for name in names:
        assert "/" not in name
        (tmp_path / f"{name}_step_000010.jsonl").touch()
