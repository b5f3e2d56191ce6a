"""jobs/report.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.report import main
from tests.conftest import ROOT
from tests.support.plots import small_plots
from tests.support.runs import make_run, write_metrics
from tests.support.search_files import finished_search


@pytest.fixture(autouse=True)
def small():
    with small_plots():
        yield


def assert_one_line_error(capsys: pytest.CaptureFixture[str], text: str, *arguments: Path | str) -> None:
    with pytest.raises(SystemExit) as ending:
        main(list(map(str, arguments)))
    error = capsys.readouterr().err
    assert ending.value.code == 2
    assert len(error.splitlines()) == 1 and text in error


def test_the_report_is_written_and_its_path_printed(tmp_path, capsys):
    run_dir = make_run(tmp_path / "run", sft_steps=2, grpo_steps=0, num_evals=1)
    main([str(run_dir), "--output-dir", str(tmp_path / "out")])
    assert capsys.readouterr() == (f"{tmp_path}/out/report.html\n", "")
    assert (tmp_path / "out" / "report.html").exists()


def test_a_search_is_reported_by_the_same_command(tmp_path, capsys):
    main([str(finished_search(tmp_path / "run")), "--output-dir", str(tmp_path / "out")])
    assert capsys.readouterr() == (f"{tmp_path}/out/report.html\n", "")
    assert (tmp_path / "out" / "plots" / "replay_ratio.png").exists()
    (tmp_path / "run" / "chains.json").write_text("{")
    assert_one_line_error(capsys, "chains.json must describe the chains of a run", tmp_path / "run")


def test_help_imports_nothing_heavy_and_a_report_needs_no_torch():
    code = """if True:
        import sys, runpy
        sys.argv = ["report.py", "--help"]
        try:
            runpy.run_path("jobs/report.py", run_name="__main__")
        except SystemExit:
            print({"torch", "matplotlib", "pydantic", "rich"} & set(sys.modules))
        import pipeline.report
        print({"torch", "transformers", "datasets", "ray"} & set(sys.modules))
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.endswith("set()\nset()\n"), result.stderr


def test_errors_are_one_line_with_exit_code_2(tmp_path, capsys):
    assert_one_line_error(capsys, "nowhere", tmp_path / "nowhere")
    assert_one_line_error(capsys, "no metrics yet", tmp_path)
    write_metrics(tmp_path / "run", [{"step": 1}])
    (tmp_path / "file").touch()
    assert_one_line_error(capsys, "must be writable", tmp_path / "run", "--output-dir", tmp_path / "file")
