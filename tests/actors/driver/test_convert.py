import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.driver.convert import convert_files
from pipeline.data.omcq.convert import ConvertSettings
from pipeline.data.omcq.parts import file_parts
from tests.conftest import ROOT
from tests.support.cluster import alone
from tests.support.data import write_jsonl

PART_BYTES = 50_000

WITH_RAY = f"""
import sys
from functools import partial
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from dataclasses import replace
from actors.driver import convert, ordered_data
from pipeline.data.omcq.convert import ConvertSettings
from pipeline.data.omcq.parts import file_parts

convert.MIN_BYTES = 0
convert.file_parts = partial(file_parts, part_bytes={PART_BYTES})
*files, output = map(Path, sys.argv[1:])
batches = list(convert.convert_files(files, ConvertSettings()))
assert all(len(set(batch["source"].to_pylist())) == 1 for batch in batches)
pq.write_table(pa.Table.from_batches(batches), output)
"""


def with_ray(files: list[Path], output: Path, script: str = WITH_RAY) -> list[dict]:
    """Converted by a Ray of its own, in a process of its own: this one may be connected to another."""
    command = [sys.executable, "-c", script, *map(str, files), str(output)]
    subprocess.run(command, cwd=ROOT, env=alone(), check=True, timeout=300)
    return pq.read_table(output).to_pylist()


@pytest.mark.slow
def test_ray_converts_the_same_rows_in_the_same_order(tmp_path):
    target = {"question": "?", "options": "A:x,B:y", "correct_answer": "A"}
    rows = [{"target": [{**target, "question": f"{n}?"}]} if n % 7 else {"target": n} for n in range(5000)]
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, file in enumerate(files):
        write_jsonl(file, *rows[number::2])
    converted = [row for batch in convert_files(files, ConvertSettings()) for row in batch.to_pylist()]
    assert len(file_parts(files, PART_BYTES)) == 8
    assert with_ray(files, tmp_path / "converted.parquet") == converted
    no_room = WITH_RAY.replace(
        "convert.MIN_BYTES", "ordered_data.TASK = replace(ordered_data.TASK, num_cpus=1000.0)\nconvert.MIN_BYTES"
    )
    assert with_ray(files, tmp_path / "alone.parquet", no_room) == converted
    assert len(converted) == 5000 and json.loads(converted[1]["text"])["conversations"][0]["content"].startswith("2?")
