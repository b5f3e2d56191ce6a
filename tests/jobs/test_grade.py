import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.grading import files as module
from pipeline.grading.files import Chunk, GradedChunk, GradeSettings, Tally, grade_chunk, grade_file, over_processes
from tests.conftest import ROOT

BOMB = r"\boxed{9^{9^{9}}+x}"
ROWS: list[dict] = [
    {"id": 1, "completion": "so <answer>7</answer>", "gold": "7"},
    {"id": 2, "completion": r"thus \boxed{\frac{1}{2}}", "gold": "0.5"},
    {"id": 3, "completion": "<answer>8</answer>", "gold": 7},
    {"id": 4, "completion": None, "gold": "7"},
    {"id": 5, "completion": "<answer>7</answer>", "gold": None},
    {"id": 6, "completion": "<answer>7</answer>", "gold": 7.0},
]
OUTCOMES = ["correct", "correct", "incorrect", "unparsed", "bad_gold", "correct"]


def command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, ROOT / "jobs" / "grade.py", "--completions", *arguments]


def run_job(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **env}
    )


def write_lines(path: Path, rows: Iterable[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def here(settings: GradeSettings, chunks: Iterable[Chunk]) -> Generator[GradedChunk, None, None]:
    """A Spread that stays in this process."""
    yield from (grade_chunk(settings, chunk) for chunk in chunks)


def grade(path: Path, **settings) -> tuple[Tally, Path]:
    output = module.default_output(path)
    return grade_file(path, output, GradeSettings(**settings), here), output


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_jsonl_file_is_graded_and_summed_up(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", ROWS)
    done = run_job(path, "--num-workers", "2")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    rows = read_lines(tmp_path / "c.graded.jsonl")
    assert [row["outcome"] for row in rows] == OUTCOMES
    assert [{key: row[key] for key in ("id", "completion", "gold")} for row in rows] == ROWS
    assert rows[0].keys() == {"id", "completion", "gold", "outcome", "method", "answer"}
    assert (rows[0]["method"], rows[0]["answer"], rows[3]["answer"]) == ("exact", "7", None)
    for text in ("correct", "50.00%", "by exact", "unparsed", "items/s", "bad_gold, line 5: gold ''", "c.graded.jsonl"):
        assert text in done.stdout
    assert names(tmp_path) == ["c.graded.jsonl", "c.jsonl"]


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


def test_lines_are_kept_as_they_were(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"completion":"\\boxed{\\\\sqrt2}" , "gold":"\xe2\x88\x9a2", "n": 1.10, "big": 1e400}\r\n',
        b"  \n",
        b'{"gold": "\\ud800", "completion": "<answer>\\ud800</answer>", "outcome": "mine"}',
    ]
    (tmp_path / "c.jsonl").write_bytes(b"".join(lines))
    _, output = grade(tmp_path / "c.jsonl")
    first, second = output.read_bytes().splitlines()
    assert first.startswith(lines[0].rstrip()[:-1] + b", ")
    assert second.startswith(lines[2][:-1] + b', "graded_outcome": ') and json.loads(second)["outcome"] == "mine"
    assert json.loads(second)["answer"] == "\ud800"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_order_and_numbers_hold_over_chunks_and_processes(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(module, "CHUNK_ROWS", 20)
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 4000)
    rows = [{"completion": f"<answer>{n}</answer>", "gold": str(n) if n % 3 else "?"} for n in range(300)]
    path = tmp_path / f"c.{suffix}"
    if suffix == "jsonl":
        write_lines(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    seen: list[tuple[int, float]] = []
    output = tmp_path / f"out.{suffix}"
    tally = grade_file(
        path,
        output,
        GradeSettings(),
        partial(over_processes, num_workers=2),
        lambda num_rows, frac: seen.append((num_rows, frac)),
    )
    graded = read_lines(output) if suffix == "jsonl" else pq.read_table(output).to_pylist()
    assert [(row["completion"], row["gold"]) for row in graded] == [(row["completion"], row["gold"]) for row in rows]
    assert [row["outcome"] for row in graded] == ["correct" if n % 3 else "bad_gold" for n in range(300)]
    assert tally.outcomes == {"correct": 200, "bad_gold": 100} and tally.methods == {"exact": 200}
    assert [example.number for example in tally.examples["bad_gold"]] == [1, 4, 7]
    assert len(seen) > 5 and seen == sorted(seen) and seen[-1] == (300, 1.0)
    if suffix == "parquet":
        assert 1 < pq.ParquetFile(output).num_row_groups < len(seen)


GOOD = json.dumps(ROWS[0]) + "\n"
MISTAKES = {
    "missing file": (None, [], "c.jsonl must be a file"),
    "empty file": ("", [], "at least one row"),
    "blank file": ("\n \n", [], "at least one row"),
    "no such completion field": (GOOD, ["--completion-field", "text"], "'text', got id, completion, gold"),
    "no such gold field": (GOOD, ["--gold-field", "truth"], "--gold-field"),
    "malformed line": (GOOD * 2 + '{"completion": "7"\n' + GOOD, [], "line 3 must be a JSON object"),
    "cut short": (GOOD + GOOD[:20], [], "line 2 must be"),
    "deep": (GOOD + "[" * 100_000, [], "line 2 must be"),
    "not an object": (GOOD + "7\n", [], "line 2 must be a JSON object, got int"),
    "a field missing later": (GOOD + '{"gold": 3}\n', [], "line 2 must have a field 'completion', got gold"),
    "a gold that is a list": ('{"completion": "7", "gold": [7]}\n', [], "line 1: gold must be text or a number"),
    "not UTF-8": (b'{"completion": "\xff", "gold": 1}\n', [], "line 1 must be UTF-8"),
    "another format": (GOOD, ["--output", "out.parquet"], "in the format of the input"),
    "over the input": (GOOD, ["--output", "c.jsonl", "--force"], "must be a file of its own"),
    "no such directory": (GOOD, ["--output", "nowhere/out.jsonl"], "out.jsonl cannot be written: No such file"),
    "below a file": (GOOD, ["--output", "c.jsonl/out.jsonl"], "cannot be written: Not a directory"),
}


@pytest.mark.parametrize(("content", "arguments", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message_and_leaves_nothing(tmp_path, monkeypatch, capsys, content, arguments, named):
    from jobs.grade import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(module, "over_processes", lambda settings, chunks, num_workers: here(settings, chunks))
    if content is not None:
        Path("c.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = names(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["--completions", "c.jsonl", *arguments])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and named in error
    assert len(error.splitlines()) == 1 and len(error) < 600
    assert names(tmp_path) == before


def test_mistakes_in_other_processes_are_told_the_same_way(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", ROWS)
    path.write_text(path.read_text() + "{\n")
    done = run_job(path, "--num-workers", "1")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "line 7 must be a JSON object" in done.stderr and names(tmp_path) == ["c.jsonl"]


def test_a_corrupt_parquet_file_is_named(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.Table.from_pylist([{"completion": f"{n}", "gold": "1"} for n in range(5000)]), path)
    data = path.read_bytes()
    for broken in (b"", b"garbage", data[:-8], data[:100] + bytes(2000) + data[2100:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"c\.parquet cannot be read as parquet"):
            grade(path)
        assert names(tmp_path) == ["c.parquet"]


def test_an_output_that_is_there_is_kept_unless_forced(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", ROWS)
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(DataError, match="--force"):
        module.check_paths(path, output, overwrite=False)
    module.check_paths(path, output, overwrite=True)
    with pytest.raises(DataError, match=r"must be a \.jsonl or \.parquet file, got suffix \.csv"):
        module.check_paths(tmp_path / "c.csv", output, overwrite=False)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    path = write_lines(tmp_path / "c.jsonl", ROWS)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._JsonlSink, "write", fail)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        grade(path)
    assert names(tmp_path) == ["c.jsonl"]


def test_a_terminal_gets_a_bar(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", ROWS)
    master, slave = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command(path, "--num-workers", "1"), stdout=slave, env=env)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the other end was closed
        pass
    assert process.wait() == 0
    assert b"100%" in shown and b"6 graded" in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_ended_in_the_middle_it_leaves_no_output_and_no_process(tmp_path, number, code):
    path = write_lines(tmp_path / "c.jsonl", [{"completion": BOMB, "gold": f"{n}"} for n in range(30_000)])
    process = subprocess.Popen(
        command(path, "--num-workers", "2"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits "ignored"
    )
    job = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while sum("pipeline.verifier.sandbox.child" in each.cmdline() for each in started(job)) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    children = started(job)
    process.send_signal(number)
    try:
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()  # it would go on for hours
    assert process.returncode == code and "Traceback" not in error
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    if number != signal.SIGKILL:
        assert names(tmp_path) == ["c.jsonl"]


def started(job: psutil.Process) -> list[psutil.Process]:
    found = []
    for each in job.children(recursive=True):
        try:
            each.cmdline()
        except psutil.Error:
            continue
        found.append(each)
    return found


@pytest.mark.slow
def test_on_ray_it_gives_the_same(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", ROWS)
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        command(path, "--ray", "--num-workers", "1"),
        capture_output=True,
        text=True,
        env={**env, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert [row["outcome"] for row in read_lines(tmp_path / "c.graded.jsonl")] == OUTCOMES
    path.write_text("{\n")
    failed = subprocess.run(
        command(path, "--ray", "--num-workers", "1", "--force"),
        capture_output=True,
        text=True,
        env={**env, "PYTHONPATH": str(ROOT)},
    )
    assert (
        failed.returncode == 2 and "line 1 must be a JSON object" in failed.stderr and "Traceback" not in failed.stderr
    )
