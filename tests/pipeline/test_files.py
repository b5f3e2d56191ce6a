import json
import os

import pytest

from pipeline import files
from pipeline.files import (
    content_digest,
    hidden_name,
    remove_stale,
    safe_name,
    whole_directory,
    write_json,
    write_jsonl,
)


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


def test_files_that_are_being_written_have_names_of_their_own_everywhere(tmp_path, monkeypatch):
    """Containers that share a filesystem have the same process ids."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert len({hidden_name(tmp_path / "a.json") for _ in range(100)}) == 100


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


def test_hidden_files_of_killed_processes_are_deleted_once_nobody_can_be_writing_them(tmp_path):
    (tmp_path / "eval").mkdir()
    old, new = hidden_name(tmp_path / "eval" / "a.json"), hidden_name(tmp_path / "b.json")
    other = tmp_path / ".lock"
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    remove_stale(tmp_path)
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "final_model"
    with pytest.raises(KeyboardInterrupt), whole_directory(target) as hidden:
        (hidden / "config.json").touch()
        raise KeyboardInterrupt
    assert not target.exists()
    for content in ("1", "2"):
        with whole_directory(target) as hidden:
            assert not list(hidden.iterdir())  # what was left is gone
            (hidden / "config.json").write_text(content)
            assert not target.exists() or (target / "config.json").read_text() == "1"
    assert (target / "config.json").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["final_model"]


def test_the_digest_of_a_large_file_covers_its_size_and_blocks_from_its_first_byte_to_its_last(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE_FILE_BYTES", 100)
    monkeypatch.setattr(files, "SAMPLED_BLOCK_BYTES", 2)
    path, content = tmp_path / "model.safetensors", bytes(1000)
    path.write_bytes(content)
    before = content_digest(path)
    for changed in (b"\1" + content[1:], content[:-1] + b"\1", content + b"\0"):
        path.write_bytes(changed)
        assert content_digest(path) != before
    path.write_bytes(content)
    assert content_digest(path) == before and len(before) == 16
