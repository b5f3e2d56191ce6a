"""A real Ray head, a real `ray job submit`, and nothing left behind."""

import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.driver.local_head import LocalHead
from jobs import submit_local
from jobs.submit_local import exit_code, submit
from tests.conftest import ROOT


def processes_of(temp_dir: Path) -> list[psutil.Process]:
    """By what their command line or environment names: an independent way to find what is left."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join([*process.cmdline(), *process.environ().values()])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(temp_dir) in text and process.pid != os.getpid():
            found.append(process)
    return found


def wait_until_gone(temp_dir: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (temp_dir.exists() or processes_of(temp_dir)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not temp_dir.exists()
    assert processes_of(temp_dir) == []


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0),
        ({"status": "FAILED", "driver_exit_code": 3}, 3),
        ({"status": "FAILED", "driver_exit_code": -9}, 137),  # killed: as a shell says it
        ({"status": "FAILED", "driver_exit_code": None}, 1),  # never started
        ({"status": "STOPPED"}, 1),
    ],
)
def test_exit_codes_of_jobs(job: dict[str, object], code: int):
    assert exit_code(job) == code


def test_help_says_that_roots_must_be_absolute(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["submit_local.py", "--help"])
    with pytest.raises(SystemExit):
        submit_local.main()
    assert "absolute paths" in capsys.readouterr().out


def with_project_on_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def head() -> Iterator[LocalHead]:
    with LocalHead(num_cpus=1, object_store_memory_bytes=100 * 1024**2) as head:
        yield head
    wait_until_gone(head.temp_dir, timeout_s=0)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "helper.py").write_text("ANSWER = 42\n")
    (tmp_path / "job.py").write_text(
        "import os, sys, helper, ray\n"
        "ray.init()\n"
        "answer = ray.get(ray.remote(lambda: helper.ANSWER).remote())\n"
        "print('answer', answer, sys.executable, *sys.argv[1:], os.environ['RAY_ADDRESS'])\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_submitted_job_runs_in_the_package_and_its_log_is_streamed(
    head: LocalHead, package: Path, capfd: pytest.CaptureFixture[str]
):
    assert submit(head, ["python", "job.py", "a b=c"]) == 0
    log = capfd.readouterr().out
    assert f"answer 42 {sys.executable} a b=c " in log
    assert log.split("a b=c ")[1].split()[0].endswith(":" + head.address.split(":")[1])


@pytest.mark.slow
def test_a_jobs_exit_code_passes_through(head: LocalHead, package: Path):
    assert submit(head, ["python", "-c", "raise SystemExit(3)"]) == 3


@pytest.mark.slow
def test_the_cluster_asks_for_its_token(head: LocalHead):
    assert stat.S_IMODE(head.token_path.stat().st_mode) == 0o600
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(head.dashboard_url + "/api/jobs/")
    error.value.close()
    assert error.value.code == 401
    assert head.request("/api/jobs/").startswith(b"[")


STUBBORN = """
import os, subprocess, sys, time
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
os.system(f"setsid {sys.executable} -c 'import time; time.sleep(600)' &")  # an orphan at once
print("RUNNING", os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are only adopted on Linux")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_in_mid_job_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int):
    (tmp_path / "job.py").write_text(STUBBORN)
    command = [sys.executable, str(ROOT / "jobs/submit_local.py"), "job.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=with_project_on_path(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout
        running = next(line for line in process.stdout if line.startswith("RUNNING"))
        temp_dir = Path(running.split()[1]).parent
        assert len(processes_of(temp_dir)) > 5
        process.send_signal(number)
        # Not waiting for the end of its output: with SIGKILL, the keeper cleans up after its death.
        assert process.wait(timeout=30) == code
        wait_until_gone(temp_dir, timeout_s=30 if number == signal.SIGKILL else 0)
