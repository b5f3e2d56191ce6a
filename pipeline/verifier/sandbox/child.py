"""The process that does the mathematics. ``crew.py`` starts it with ``python -m``.

It imports everything once and gives up every right it does not need. Then it forks one worker for each socket that its
parent sends: a fork takes milliseconds, the imports seconds. A worker reads slices of jobs, one JSON list per line, and
answers each job with one byte, so no text can pass for an answer. A job past its deadline is ended by the kernel's
alarm, which also fires while no Python code runs.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any, NamedTuple

from pipeline.verifier.sandbox.protocol import Comparer, encode
from pipeline.verifier.verdict import Comparison

_MAX_JOBS = 5000
"""A worker is replaced after this many jobs, which bounds what it accumulates, such as sympy's caches."""
_RECURSION_LIMIT = 4000
_IS_LINUX = sys.platform == "linux"

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446

_REFUSED_AREAS = frozenset(["socket", "subprocess", "ctypes", "pty", "shutil", "signal", "tempfile"])
_ALLOWED_OS_EVENTS = frozenset(["os.listdir", "os.scandir"])
"""Imports need these."""
_CHANGES_FILES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Limits(NamedTuple):
    timeout_s: float
    memory_mib: int


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    limits = _Limits(float(sys.argv[2]), int(sys.argv[3]))
    compare = _load(sys.argv[4])
    _lock_down()
    gc.collect()
    gc.freeze()  # a collection in a worker would copy every page it shares with this process
    _fork_workers(control, compare, limits)


def _load(path: str) -> Comparer:
    """Import the comparer and call it once, because sympy loads much of itself lazily."""
    module, _, name = path.partition(":")
    compare: Comparer = getattr(importlib.import_module(module), name)
    compare("x^2 + 2x + 1", "(x + 1)^2", True)
    return compare


def _fork_workers(control: socket.socket, compare: Comparer, limits: _Limits) -> None:
    """Fork one worker per socket received, until the parent hangs up or dies. Leaves no worker and no zombie."""
    pids: set[int] = set()

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):  # handlers interrupt each other
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                pids.discard(pid)

    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while sockets := socket.recv_fds(control, 1, 1)[1]:
            with socket.socket(fileno=sockets[0]) as connection:
                signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)  # or a worker could end before its pid is noted
                if pid := os.fork():
                    pids.add(pid)
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
                else:
                    control.close()
                    _work(connection, compare, limits)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        for pid in list(pids):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        os._exit(0)


_HANDLED = (signal.SIGCHLD, signal.SIGTERM)


def _work(connection: socket.socket, compare: Comparer, limits: _Limits) -> None:
    """Never returns: an unexpected error in a worker must not run on into the code of the zygote."""
    try:
        _confine(limits.memory_mib)
        connection.send(os.getpid().to_bytes(4, "big"))
        _serve(connection, compare, limits)
    finally:
        os._exit(0)


def _serve(connection: socket.socket, compare: Comparer, limits: _Limits) -> None:
    large_mib = _peak_memory_mib() + limits.memory_mib / 2
    num_jobs = 0
    for line in connection.makefile("rb"):
        for answer, gold, all_methods in json.loads(line):
            signal.setitimer(signal.ITIMER_REAL, limits.timeout_s)
            reply = _reply(compare, answer, gold, all_methods)
            signal.setitimer(signal.ITIMER_REAL, 0)
            num_jobs += 1
            is_large = _peak_memory_mib() > large_mib
            if is_large and not reply.is_equal:  # sympy swallows a MemoryError and then answers "not equal"
                reply = Comparison(failure="timeout")
            is_last = is_large or reply.failure == "timeout" or num_jobs >= _MAX_JOBS
            connection.send(encode(reply, is_last=is_last))
            if is_last:
                return


def _reply(compare: Comparer, answer: str, gold: str, all_methods: bool) -> Comparison:
    """The one place where the result of a comparison, or its exception, becomes an answer."""
    try:
        result = compare(answer, gold, all_methods)
        return Comparison(failure="bad_gold") if result is None else Comparison(*result)
    except (MemoryError, RecursionError):
        return Comparison(failure="timeout")
    except Exception:
        return Comparison(symbolic=False, numeric=False)


def _peak_memory_mib() -> float:
    """The peak of this process since it was forked."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if _IS_LINUX else 1024**2)


def _lock_down() -> None:
    """Give up writing and sending, for this process and the workers it forks, even when the user is root.

    A network namespace and Landlock are used where the kernel supports them.
    """
    logging.disable()
    sys.dont_write_bytecode = True
    sys.setrecursionlimit(_RECURSION_LIMIT)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.chdir("/proc" if _IS_LINUX else "/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if _IS_LINUX:
        libc = ctypes.CDLL(None)
        if libc.unshare(_CLONE_NEWNET):  # root may; others need a user namespace for it
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        _forbid_writing(libc)


def _forbid_writing(libc: Any) -> None:
    """Landlock without exceptions: no file or directory can be created, changed or executed, and no TCP used."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return
    reading = 1 << 2 | 1 << 3
    truncating = 1 << 14 if version >= 3 else 0
    rights = struct.pack("QQ", ((1 << 13) - 1) & ~reading | truncating, 3 if version >= 4 else 0)
    rules = libc.syscall(_LANDLOCK_CREATE, rights, len(rights), 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(_LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _confine(memory_mib: int) -> None:
    """Restrict a worker: it ends with its zygote, its memory and processes are limited, and an audit hook refuses."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with open("/proc/self/statm") as statm:
            limit = int(statm.read().split()[0]) * resource.getpagesize() + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # does not bind root; the hook does
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    area = event.partition(".")[0]
    if area == "open":
        is_refused = bool(arguments[2] & _CHANGES_FILES)
    elif area == "exec":
        is_refused = arguments[0].co_filename.startswith("<")  # an import executes a file
    elif area == "compile":
        is_refused = arguments[0] is not None or str(arguments[1]).startswith("<")
    else:
        is_refused = area in _REFUSED_AREAS or (area == "os" and event not in _ALLOWED_OS_EVENTS)
    if is_refused:
        raise PermissionError(f"a grading worker must not use {event}")


if __name__ == "__main__":
    main()
