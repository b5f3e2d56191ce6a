import json
from functools import partial

import pytest

from actors.driver import convert
from actors.driver.convert import convert_files
from pipeline.data.omcq.convert import ConvertSettings
from pipeline.data.omcq.parts import file_parts
from tests.support.data import write_jsonl


@pytest.mark.slow
def test_ray_converts_the_same_rows_in_the_same_order(tmp_path, monkeypatch):
    target = {"question": "?", "options": "A:x,B:y", "correct_answer": "A"}
    rows = [{"target": [{**target, "question": f"{n}?"}]} if n % 7 else {"target": n} for n in range(5000)]
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, file in enumerate(files):
        write_jsonl(file, *rows[number::2])
    alone = [row for batch in convert_files(files, ConvertSettings()) for row in batch.to_pylist()]
    monkeypatch.setattr(convert, "MIN_BYTES", 0)
    monkeypatch.setattr(convert, "file_parts", partial(file_parts, part_bytes=50_000))
    assert len(file_parts(files, 50_000)) == 8
    with_ray = list(convert_files(files, ConvertSettings()))
    assert [row for batch in with_ray for row in batch.to_pylist()] == alone
    assert all(len(set(batch["source"].to_pylist())) == 1 for batch in with_ray)
    assert len(alone) == 5000 and json.loads(alone[1]["text"])["conversations"][0]["content"].startswith("2?")
