"""jobs/watch.py."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.watch import main
from tests.conftest import ROOT
from tests.support.run_pages import begin_run


def test_it_prints_an_address_serves_it_and_stops_at_ctrl_c(tmp_path):
    command = [sys.executable, "-u", "jobs/watch.py", str(begin_run(tmp_path / "run", []))]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background ignore Ctrl-C
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=heeding, **pipes) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            assert b"<h2>Curves</h2>" in urllib.request.urlopen(url, timeout=60).read()
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(url[: url.rindex("/", 0, -1)], timeout=60)
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, errors) == (0, "") and out.endswith("stopped.\n")


def test_what_is_no_run_is_told_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ending:
        main([str(Path(tmp_path, "nowhere"))])
    error = capsys.readouterr().err
    assert ending.value.code == 2 and len(error.splitlines()) == 1 and "must hold experiment_config.json" in error


def test_help_imports_nothing_heavy_and_a_page_needs_no_torch():
    code = """if True:
        import sys, runpy
        sys.argv = ["watch.py", "--help"]
        try:
            runpy.run_path("jobs/watch.py", run_name="__main__")
        except SystemExit:
            print({"torch", "matplotlib", "pydantic", "numpy"} & set(sys.modules))
        import pipeline.run_page.server
        print({"torch", "transformers", "datasets", "ray", "plotly"} & set(sys.modules))
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.endswith("set()\nset()\n"), result.stderr
