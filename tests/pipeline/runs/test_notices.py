import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs.notices import notices_shown
from tests.conftest import ROOT


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def append(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def notice(text: str) -> str:
    """As ``pipeline.runs.logs.FORMAT`` writes it."""
    return f"2026-11-26 19:46:37,123 WARNING pipeline.runs.notices: {text}"


def shown_after(run_path: Path, capsys: pytest.CaptureFixture[str], log: str, *lines: str) -> list[str]:
    """What the driver shows of these new lines of a log."""
    with notices_shown(run_path, poll_s=60):
        append(run_path / log, *lines)
    return capsys.readouterr().out.splitlines()


WAITING = """
from pathlib import Path
from pipeline.runs.logs import log_to_file
from pipeline.runs.waits import report_wait

report_wait("nothing", 60, 120)
log_to_file(Path("."), "learner_0")
report_wait("completions (2 of 8 calls pending)", 61.4, 1800)
"""


def test_the_driver_shows_what_another_process_waits_for(run_path, capsys):
    with notices_shown(run_path):
        environment = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", WAITING], cwd=run_path, env=environment, capture_output=True, text=True, check=True
        )
    expected = "waiting 61 s for completions (2 of 8 calls pending) (limit 1800 s)\n"
    # In the driver, this is the console; it has no log before its run directory exists.
    assert done.stdout == "waiting 60 s for nothing (limit 120 s)\n" + expected
    assert done.stderr == ""
    assert capsys.readouterr().out == f"learner_0: {expected}"


def test_notices_of_the_stages_of_a_search_are_shown(run_path, capsys):
    assert shown_after(run_path, capsys, "stages/a1b2/logs/learner_0.log", notice("slow")) == ["a1b2 learner_0: slow"]


def test_what_the_driver_printed_itself_is_not_shown_twice(run_path, capsys):
    assert shown_after(run_path, capsys, "logs/driver.log", notice("slow")) == []


def test_notices_of_before_the_run_was_resumed_are_not_shown_again(run_path, capsys):
    append(run_path / "logs" / "learner_0.log", notice("old"))
    assert shown_after(run_path, capsys, "logs/learner_0.log", notice("new")) == ["learner_0: new"]


def test_other_lines_of_a_log_are_not_shown(run_path, capsys):
    other = notice("text").replace("notices", "records"), "Traceback:", f"x {notice('text')}", ""
    assert shown_after(run_path, capsys, "logs/learner_0.log", *other) == []


def test_a_log_cannot_send_control_characters_to_the_terminal(run_path, capsys):
    assert shown_after(run_path, capsys, "logs/learner_0.log", notice("a\x1b[2Jb")) == ["learner_0: a[2Jb"]
