"""Runs a job script on a private Ray cluster on this machine, by ``ray job submit --working-dir .``.

    python jobs/submit_local.py jobs/demo.py --config configs/demo.yaml output.root=$PWD/output/experiments

The job runs in a copy of the current directory, in Ray's temporary directory, which is gone afterwards: give output and
data roots as absolute paths. The job's log is shown here, and this command exits with the job's exit code. Ctrl-C,
SIGTERM and failures stop the job and everything it started.
"""

import argparse
import json
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from actors.driver.local_head import LocalHead
from actors.driver.package import package_listing
from pipeline.errors import GradusError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", help="a job script, relative to the current directory")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="handed to the script")
    options = parser.parse_args()
    if not Path(options.script).is_file():
        parser.error(f"no such script: {options.script}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    try:
        print(package_listing(Path.cwd()).describe(), flush=True)
        with LocalHead() as head:
            print(f"Ray dashboard: {head.dashboard_url} (if it asks for a token: cat {head.token_path})", flush=True)
            return submit(head, ["python", options.script, *options.args])
    except GradusError as error:
        print(error, file=sys.stderr)
        return 2


def submit(head: LocalHead, entrypoint: list[str]) -> int:
    """Runs ``entrypoint`` in a copy of the current directory and returns its exit code."""
    job_id = f"gradus-{secrets.token_hex(4)}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", head.dashboard_url]
    command += ["--log-style", "pretty", "--submission-id", job_id, "--working-dir", ".", "--", *entrypoint]
    # A session of its own, so that the terminal's Ctrl-C reaches us alone and we end it.
    client = subprocess.Popen(command, env=head.env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        client_code = client.wait()
    finally:
        client.kill()
        client.wait(timeout=60)
    if client_code not in (0, 1):  # the client's own codes for jobs that ended
        return client_code
    jobs = json.loads(head.request("/api/jobs/"))
    # If it is missing, the client was refused and has printed why.
    return exit_code(next((job for job in jobs if job["submission_id"] == job_id), {"status": "REFUSED"}))


def exit_code(job: dict[str, object]) -> int:
    """Exit code of a job from Ray's description of it. Death by a signal is 128 plus its number, as in a shell."""
    code = job.get("driver_exit_code")
    if not isinstance(code, int):
        return 0 if job["status"] == "SUCCEEDED" else 1
    return code if code >= 0 else 128 - code


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
