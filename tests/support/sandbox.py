"""A pool whose workers do what a job says, and questions to the kernel about its processes.

The workers import this module for ``misbehave``, so it imports nothing heavy.
"""

import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.verifier.sandbox.pool import SandboxPool
from pipeline.verifier.verdict import Comparison, Job

HERE = Path(__file__)
EQUAL, DIFFERENT = Comparison(symbolic=True), Comparison(symbolic=False)
TIMEOUT = Comparison(failure="timeout")
FAILED = Comparison(symbolic=False, numeric=False)
"""The result when a comparison raises an exception."""


def _recurse() -> None:
    _recurse()


def _overflow_the_stack() -> None:
    sys.setrecursionlimit(10**7)
    nested: list[Any] = []
    for _ in range(10**6):
        nested = [nested]
    repr(nested)


def _take(num_mib: int) -> None:
    pieces = [b"x" * 2**16 for _ in range(16 * num_mib)]
    assert pieces


def _swallow() -> None:
    try:
        _take(4096)
    except MemoryError:
        raise PermissionError from None  # "different"


def _raise() -> None:
    raise ValueError


def _run(code: int) -> None:
    _, status = os.waitpid(code, 0)
    assert status == 0


ACTIONS: dict[str, Callable[[], object]] = {
    "sleep": partial(time.sleep, 60),
    "spin": lambda: 9**9**9,  # one operation on one integer: no Python code runs for minutes
    "no alarm": lambda: (signal.setitimer(signal.ITIMER_REAL, 0), ACTIONS["sleep"]()),
    "exit": lambda: os._exit(0),
    "system exit": sys.exit,
    "die": lambda: signal.raise_signal(signal.SIGKILL),
    "crash": lambda: signal.raise_signal(signal.SIGSEGV),
    "recurse": _recurse,
    "overflow": _overflow_the_stack,
    "raise": _raise,
    "take 64": lambda: _take(64),
    "take 160": lambda: _take(160),
    "take 4096": lambda: _take(4096),
    "take 4096 at once": lambda: b"x" * 2**32,
    "swallow": _swallow,
    "print": lambda: (os.write(1, b"\x02" * 999), print("\x02" * 999), print("\x02", file=sys.stderr)),
    "nothing": lambda: None,
    "read": HERE.read_bytes,
    "list": lambda: os.listdir(HERE.parent),
    "late import": lambda: __import__("colorsys"),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "resolve": lambda: socket.getaddrinfo("localhost", 80),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "system": lambda: os.system("true"),
    "run": lambda: subprocess.run(["true"], check=True),
    "spawn": lambda: _run(os.posix_spawn("/bin/true", ["true"], {})),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "kill": lambda: os.kill(os.getppid(), 0),
    "ctypes": lambda: ctypes.CDLL(None).getpid(),
    "eval": lambda: eval("1 + 1"),
    "exec text": lambda: exec("pass"),
    "compile": lambda: compile("1 + 1", "answer", "eval"),
    "write here": lambda: Path("canary").write_text("x"),
    "write": lambda: Path("/tmp/gradus-canary").write_text("x"),
    "append": lambda: HERE.open("a"),
    "truncate": lambda: os.truncate(HERE, HERE.stat().st_size),
    "update": lambda: HERE.open("r+"),
    "low-level write": lambda: os.open("/tmp/gradus-canary", os.O_CREAT | os.O_WRONLY),
    "make a directory": lambda: os.mkdir("/tmp/gradus-canary"),
    "remove": lambda: os.remove("/tmp/gradus-missing"),
}
KILLERS = ["sleep", "spin", "no alarm", "exit", "system exit", "die", "crash", "recurse", "overflow"]
KILLERS += ["take 4096", "take 4096 at once", "swallow"]


def misbehave(answer: str, gold: str, all_methods: bool) -> tuple[bool | None, bool | None] | None:
    """Does the action that a job names as its answer; otherwise compares texts."""
    if gold == "bad":
        return None
    if answer in ACTIONS:
        try:
            ACTIONS[answer]()
        except PermissionError:
            return False, None
        return True, None
    return answer == gold, (True if all_methods else None)


def slow_to_start(answer: str, gold: str, all_methods: bool) -> tuple[bool | None, bool | None]:
    """Takes half a second for its first call, which the zygote makes before it forks workers."""
    if answer.startswith("x^2"):
        time.sleep(0.5)
    return answer == gold, None


def make_pool(
    num_children: int = 2,
    timeout_s: float = 1.0,
    memory_limit_mib: int = 256,
    comparer: Callable[..., object] = misbehave,
) -> SandboxPool:
    return SandboxPool(num_children, timeout_s, memory_limit_mib, comparer=f"{__name__}:{comparer.__name__}")


def state(pid: int) -> str:
    """R, S, Z, ..., or empty if no such process exists."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    pids = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                pids.append(int(entry.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return pids


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def are_gone(pids: list[int]) -> bool:
    return wait_for(lambda: all(state(pid) in ("", "Z") for pid in pids))


def full_size(pool: SandboxPool, num_children: int = 2) -> list[int]:
    """The pids of a pool once all of its workers are ready."""

    def is_full() -> bool:
        pids = pool.child_pids()
        if len(pids) == 1 + num_children and all(state(pid) not in ("", "Z") for pid in pids):
            return True
        pool.compare([Job("nothing", "")] * 8)  # a worker that was killed while idle is replaced with the next jobs
        return False

    pool.start()
    assert wait_for(is_full, timeout_s=60)
    return pool.child_pids()


# In other processes ------------------------------------------------------------------------------------


def in_a_forked_process(pool: SandboxPool, answers: "multiprocessing.Queue[Any]") -> None:
    """Report the known children before and after a call, and those left after ``close``."""
    answers.put((pool.child_pids(), pool.compare([Job("a", "a"), Job("exit", "a"), Job("a", "b")]), pool.child_pids()))
    pool.close()
    answers.put(children(os.getpid()))


def in_a_spawned_process(answers: "multiprocessing.Queue[Any]") -> None:
    in_a_forked_process(make_pool(), answers)


def owner_command(script: str) -> list[str]:
    """A Python process that runs a script with the names of this module."""
    return [sys.executable, "-c", f"from {__name__} import *\n" + textwrap.dedent(script)]
