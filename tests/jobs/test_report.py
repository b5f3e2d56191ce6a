import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.support.runs import make_run, write_rows
from tests.support.search_files import finished_search


def run_job(*args: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "jobs" / "report.py", *args]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def assert_one_line_error(result: subprocess.CompletedProcess, text: str) -> None:
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and text in result.stderr


def test_the_report_is_written_and_its_path_printed(tmp_path):
    result = run_job(make_run(tmp_path / "run"), "--output-dir", tmp_path / "out")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path}/out/report.html\n"), result.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_a_search_is_reported_by_the_same_command(tmp_path):
    result = run_job(finished_search(tmp_path / "run"), "--output-dir", tmp_path / "out")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path}/out/report.html\n"), result.stderr
    assert (tmp_path / "out" / "plots" / "replay_ratio.png").exists()
    (tmp_path / "run" / "chains.json").write_text("{")
    assert_one_line_error(run_job(tmp_path / "run"), "chains.json must describe the chains of a run")


def test_help_imports_nothing_heavy():
    code = """if True:
        import sys, runpy
        sys.argv = ["report.py", "--help"]
        try:
            runpy.run_path("jobs/report.py", run_name="__main__")
        except SystemExit:
            print({"torch", "matplotlib", "pydantic", "rich"} & set(sys.modules))
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.endswith("set()\n"), result.stderr


def test_errors_are_one_line_with_exit_code_2(tmp_path):
    assert_one_line_error(run_job(tmp_path / "nowhere"), "nowhere")
    assert_one_line_error(run_job(tmp_path), "no metrics yet")
    write_rows(tmp_path / "run", [{"step": 1}])
    (tmp_path / "file").touch()
    assert_one_line_error(run_job(tmp_path / "run", "--output-dir", tmp_path / "file"), "must be writable")
