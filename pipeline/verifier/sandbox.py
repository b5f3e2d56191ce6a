"""Grading that can be killed: one child process, one deadline per answer, no signals in the caller."""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import cast

import pipeline
from pipeline.verifier import grading
from pipeline.verifier.verdict import Verdict

_START_TIMEOUT_S = 120.0
_MARGIN_S = 1.0
"""The child ends itself at its deadline. After this much more it is killed."""
_ROOT = str(Path(pipeline.__file__).resolve().parents[1])
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")


class SandboxedGrader:
    """Grades completions; mathematics runs in a child process that is replaced when it overruns.

    Thread-safe: calls that need the child take turns. The child starts with the first of them, or
    with ``start``, and its start does not count against the deadline.
    """

    def __init__(self, timeout_s: float = 2.0, memory_limit_mib: int = 1024) -> None:
        self._timeout_s = timeout_s
        self._memory_limit_mib = memory_limit_mib
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def __enter__(self) -> "SandboxedGrader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def grade(self, completion: str, gold: str, *, all_methods: bool = False) -> Verdict:
        return grading.judge(completion, gold, self._compare, all_methods=all_methods)

    def start(self) -> None:
        """Start the child now; returns before it is ready."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the child. A later call starts a new one."""
        with self._lock:
            self._stop()

    def _compare(self, answer: str, gold: str) -> grading.Reply:
        job = json.dumps({"answer": answer, "gold": gold}).encode() + b"\n"  # ASCII: any text passes
        with self._lock:
            reply = ""
            try:
                process = self._ready_process()
                reply = _ask(process, job, self._timeout_s + _MARGIN_S)
            finally:
                if not reply:  # a late reply must not be taken for the next one's
                    self._stop()
            if not reply:
                self._start()
                return "timeout"
            return cast(grading.Reply, reply)

    def _ready_process(self) -> subprocess.Popen[bytes]:
        if self._process and self._process.poll() is not None:
            self._stop()
        process = self._start()
        if not self._is_ready and _read_line(process, _START_TIMEOUT_S) != "ready":
            raise RuntimeError(f"grading child must start within {_START_TIMEOUT_S:g} s: see its message on stderr")
        self._is_ready = True
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.verifier.child", str(self._timeout_s), str(self._memory_limit_mib)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd=_ROOT,
                env={**environment, "PYTHONPATH": _ROOT},
                start_new_session=True,  # Ctrl-C is for the parent
            )
        return self._process

    def _stop(self) -> None:
        process, self._process, self._is_ready = self._process, None, False
        if process:
            with process:  # closes the pipes and waits
                process.kill()


def _ask(process: subprocess.Popen[bytes], job: bytes, timeout_s: float) -> str:
    assert process.stdin
    try:
        process.stdin.write(job)
    except BrokenPipeError:
        return ""
    return _read_line(process, timeout_s)


def _read_line(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    """One short line of the child's output; empty when it ended or is late."""
    assert process.stdout
    poll = select.poll()  # select.select fails on descriptors above 1023
    poll.register(process.stdout, select.POLLIN)
    return process.stdout.readline().decode().strip() if poll.poll(timeout_s * 1000) else ""


_default = SandboxedGrader()
atexit.register(_default.close)


def grade(completion: str, gold: str, *, all_methods: bool = False) -> Verdict:
    """Judge the final answer of a completion. Safe on any text, from any thread.

    Args:
        completion: what the policy wrote; see ``extract`` for where its answer is looked for.
        gold: the true final answer, as text.
        all_methods: also fill ``strict``, ``symbolic`` and ``numeric``, each comparison on its own.
    """
    return _default.grade(completion, gold, all_methods=all_methods)
