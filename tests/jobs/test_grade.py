"""jobs/grade.py: what it prints and writes, its user errors, and how it ends."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.grade import main
from pipeline.grading import processes
from pipeline.runs.records import read_jsonl
from tests.conftest import ROOT
from tests.support.data import write_jsonl
from tests.support.grading import here

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
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}


def command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, ROOT / "jobs" / "grade.py", "--completions", *arguments]


def read_lines(path: Path) -> list[dict]:
    return read_jsonl(path)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def keep_signals(monkeypatch):
    """The job's handlers are for a process of its own."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_a_jsonl_file_is_graded_with_a_bar_on_a_terminal_and_a_summary(tmp_path):
    path = Path(write_jsonl(tmp_path / "c.jsonl", *ROWS))
    master, slave = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        command(path, "--num-workers", "2"), stdout=slave, stderr=subprocess.PIPE, env=environment
    )
    os.close(slave)
    printed = b""
    try:
        while part := os.read(master, 65536):
            printed += part
    except OSError:  # the other end was closed
        pass
    _, error = process.communicate()
    assert (process.returncode, error) == (0, b"")
    assert b"100%" in printed and b"6 graded" in printed
    shown = printed.decode()
    for text in ("correct", "50.00%", "by exact", "unparsed", "items/s", "bad_gold, line 5: gold ''", "c.graded.jsonl"):
        assert text in shown
    rows = read_lines(tmp_path / "c.graded.jsonl")
    assert [row["outcome"] for row in rows] == OUTCOMES
    assert [{key: row[key] for key in ("id", "completion", "gold")} for row in rows] == ROWS
    assert rows[0].keys() == {"id", "completion", "gold", "outcome", "method", "answer"}
    assert (rows[0]["method"], rows[0]["answer"], rows[3]["answer"]) == ("exact", "7", None)
    assert names(tmp_path) == ["c.graded.jsonl", "c.jsonl"]


def test_without_a_terminal_there_is_a_summary_and_no_bar(tmp_path, capsys, monkeypatch, keep_signals):
    monkeypatch.setattr(processes, "over_processes", lambda settings, chunks, num_workers: here(settings, chunks))
    main(["--completions", write_jsonl(tmp_path / "c.jsonl", *ROWS)])
    printed = capsys.readouterr().out
    assert "6 completions in" in printed and "\x1b" not in printed and "100%" not in printed


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
    "not an object": (GOOD + "7\n", [], "line 2 must be a JSON object, got a number"),
    "a field missing later": (GOOD + '{"gold": 3}\n', [], "line 2 must have a field 'completion', got gold"),
    "a gold that is a list": (
        '{"completion": "7", "gold": [7, 8]}\n',
        [],
        "line 1: field gold must be one text or number",
    ),
    "not UTF-8": (b'{"completion": "\xff", "gold": 1}\n', [], "line 1 must be UTF-8"),
    "another format": (GOOD, ["--output", "out.parquet"], "in the format of the input"),
    "over the input": (GOOD, ["--output", "c.jsonl", "--force"], "must be a file other than the input"),
    "no such directory": (GOOD, ["--output", "nowhere/out.jsonl"], "out.jsonl cannot be written: No such file"),
    "below a file": (GOOD, ["--output", "c.jsonl/out.jsonl"], "cannot be written: Not a directory"),
}


def assert_one_message(capsys: pytest.CaptureFixture[str], text: str, *arguments: str) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["--completions", "c.jsonl", *arguments])
    error = capsys.readouterr().err
    assert ending.value.code == 2 and text in error
    assert len(error.splitlines()) == 1 and len(error) < 600


@pytest.mark.parametrize(("content", "arguments", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_user_error_is_one_message_and_leaves_nothing_behind(
    tmp_path, monkeypatch, capsys, keep_signals, content, arguments, named
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "over_processes", lambda settings, chunks, num_workers: here(settings, chunks))
    if content is not None:
        Path("c.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = names(tmp_path)
    assert_one_message(capsys, named, *arguments)
    assert names(tmp_path) == before


def test_errors_in_other_processes_are_reported_the_same_way(tmp_path, monkeypatch, capsys, keep_signals):
    monkeypatch.chdir(tmp_path)
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[2:]) + "{\n")
    assert_one_message(capsys, "line 5 must be a JSON object", "--num-workers", "1")
    assert names(tmp_path) == ["c.jsonl"]


@pytest.mark.parametrize(
    ("number", "code", "num_workers"),
    [
        pytest.param(signal.SIGINT, 130, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, 1, marks=pytest.mark.slow),
        (signal.SIGKILL, -9, 2),
    ],
)
def test_a_job_ended_in_the_middle_leaves_no_output_and_no_process(tmp_path, number, code, num_workers):
    path = Path(write_jsonl(tmp_path / "c.jsonl", *[{"completion": BOMB, "gold": f"{n}"} for n in range(10_000)]))
    process = subprocess.Popen(
        command(path, "--num-workers", str(num_workers)),
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits "ignored"
    )
    job = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while sum("pipeline.verifier.sandbox.child" in each.cmdline() for each in started(job)) < num_workers:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    children = started(job)
    process.send_signal(number)
    try:
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()  # it would run for hours
    assert process.returncode == code and "Traceback" not in error
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    if number != signal.SIGKILL:
        assert names(tmp_path) == ["c.jsonl"]


def started(job: psutil.Process) -> list[psutil.Process]:
    """The job's processes that still run."""
    running = []
    for each in job.children(recursive=True):
        try:
            each.cmdline()
        except psutil.Error:
            continue
        running.append(each)
    return running


def test_a_cluster_is_used_on_request(tmp_path, monkeypatch, capsys, keep_signals):
    from actors import grading

    requested: list[int | None] = []

    def over_ray(settings, chunks, num_workers):
        requested.append(num_workers)
        return here(settings, chunks)

    monkeypatch.setattr(grading, "over_ray", over_ray)
    path = write_jsonl(tmp_path / "c.jsonl", *ROWS[2:])
    main(["--completions", path, "--ray"])
    main(["--completions", path, "--ray", "--num-workers", "3", "--force"])
    assert requested == [None, 3]


ON_RAY = """if True:
    import sys
    from pathlib import Path
    from actors.grading import over_ray
    from pipeline.cli import user_errors
    from pipeline.grading.chunks import GradeSettings
    from pipeline.grading.tables import Chunk

    good = Chunk(1, Path(sys.argv[1]).read_bytes().splitlines(keepends=True), 0.5)
    with user_errors():
        for graded in over_ray(GradeSettings(), [good, Chunk(7, [b"{"], 1.0)], 1):
            print(b"".join(graded.data).decode(), end="")
"""


@pytest.mark.slow
def test_on_ray_the_output_and_the_error_messages_are_the_same(tmp_path):
    path = Path(write_jsonl(tmp_path / "c.jsonl", *ROWS))
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, path], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT
    )
    assert [json.loads(line)["outcome"] for line in done.stdout.splitlines()] == OUTCOMES, done.stderr
    assert done.returncode == 2 and "line 7 must be a JSON object" in done.stderr and "Traceback" not in done.stderr
