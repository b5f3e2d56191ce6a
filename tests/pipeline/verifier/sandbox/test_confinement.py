"""Workers can read and import, and nothing else."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.verifier.verdict import Job
from tests.support.sandbox import DIFFERENT, EQUAL, full_size


@pytest.mark.parametrize("action", ["nothing", "read", "list", "late import", "print"])
def test_workers_may_read_and_import(action, pool):
    assert pool.compare([Job(action, ""), Job("a", "b")]) == [EQUAL, DIFFERENT]


@pytest.mark.parametrize(
    "action",
    """connect;resolve;unix socket;system;run;spawn;exec;fork;kill;ctypes;eval;exec text;compile
    write here;write;append;truncate
    update;low-level write;make a directory;remove""".replace("\n", ";").split(";"),
)
def test_workers_are_refused_what_they_do_not_need(action, pool):
    assert pool.compare([Job(action.strip(), ""), Job("a", "a")]) == [DIFFERENT, EQUAL]


def test_the_kernel_confines_workers_too(pool):
    worker = full_size(pool)[1]
    assert os.readlink(f"/proc/{worker}/cwd") == "/proc"
    assert {os.readlink(f"/proc/{worker}/fd/{fd}") for fd in range(3)} == {os.devnull}
    lines = Path(f"/proc/{worker}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:47].strip() for line in lines}
    assert limits["Max file size"] == limits["Max processes"] == limits["Max core file size"] == "0"
    assert 256 * 2**20 < int(limits["Max address space"]) < 768 * 2**20
    if can_unshare():
        assert os.readlink(f"/proc/{worker}/ns/net") != os.readlink("/proc/self/ns/net")


def can_unshare() -> bool:
    return subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True).returncode == 0
