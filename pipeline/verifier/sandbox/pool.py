"""Comparisons that can be killed: a pool of child processes, a deadline per job, no signals in the caller.

A parent process (``child.py``) has imported sympy and forks the workers. Each thread of the pool owns one
worker and gives it slices of jobs. A worker that dies or is late costs a ``timeout`` for the one job it was at;
it is replaced at once and the rest of its slice goes on in the replacement.
"""

import atexit
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pipeline
from pipeline.verifier.verdict import Comparison, Job

_START_TIMEOUT_S = 120.0
_MAX_STARTS = 3
_END_TIMEOUT_S = 1.0
_MARGIN_S = 0.5
"""A worker is ended by its own alarm at its deadline. After this much more it is killed."""
_MAX_SLICE_JOBS = 16
_MAX_SLICE_BYTES = 48 * 1024
"""Fits into a socket's buffer: a slice is sent whole, whatever the worker is doing."""
_ROOT = str(Path(pipeline.__file__).resolve().parents[1])
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH")
_STEADY_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
"""Only a process of one thread can fork; and sympy's results must not depend on a run's hash seed."""


Comparer = Callable[[str, str, bool], tuple[bool | None, bool | None] | None]
"""Of answer, gold and ``all_methods``: whether they are equal symbolically and numerically; None for a bad gold."""

# A worker's reply to a job is one byte: the index of a comparison, and whether the worker ends now.
_COMPARISONS = [Comparison(a, b) for a in (None, False, True) for b in (None, False, True)]
_COMPARISONS += [Comparison(failure="timeout"), Comparison(failure="bad_gold")]
LAST = 0x80


def encode(comparison: Comparison) -> int:
    return _COMPARISONS.index(comparison)


class SandboxPool:
    """Compares jobs in ``num_children`` worker processes.

    Safe to use from any thread. A forked process that inherits a pool leaves the children to their owner and
    starts its own with its first call. Starting never counts against a deadline.

    Args:
        num_children: by default one for each core that this process may use, at most 4.
        timeout_s: wall-clock seconds for one job.
        memory_limit_mib: what one job may take, beyond what a worker takes to begin with.
        comparer: where the workers import their ``Comparer`` from, ``module:function``.
    """

    def __init__(
        self,
        num_children: int | None = None,
        timeout_s: float = 2.0,
        memory_limit_mib: int = 512,
        *,
        comparer: str = "pipeline.verifier.compare.shapes:compare",
    ) -> None:
        self._num_children = num_children or min(4, _num_cores())
        self._timeout_s = timeout_s
        self._arguments = (str(timeout_s), str(memory_limit_mib), comparer)
        self._crew: _Crew | None = None
        _pools.add(self)

    def __enter__(self) -> "SandboxPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the children now; returns before they are ready."""
        with _lock:
            self._started()

    def compare(self, jobs: Sequence[Job]) -> list[Comparison]:
        """One comparison per job, in order. Blocks.

        Raises:
            RuntimeError: the children cannot be started, or the pool was closed meanwhile.
        """
        slices = _slices(jobs, max_jobs=min(_MAX_SLICE_JOBS, 1 + len(jobs) // (4 * self._num_children)))
        with _lock:
            futures = [self._started().submit(encoded_jobs) for encoded_jobs in slices]
        return [comparison for future in futures for comparison in future.result()]

    def close(self) -> None:
        """End the children, also those at work. A later call starts new ones."""
        with _lock:
            crew, self._crew = self._crew, None
            if crew:
                crew.end()
        for worker in crew.workers if crew else []:
            worker.join()

    def child_pids(self) -> list[int]:
        """The process that forks the workers, then the workers that are ready. Empty before the start."""
        with _lock:
            return self._crew.pids() if self._crew else []

    def _started(self) -> "_Crew":
        if self._crew is None:
            self._crew = _Crew(self._num_children, self._timeout_s, self._arguments)
        return self._crew

    def _forget(self) -> None:
        if self._crew:
            self._crew.abandon()
        self._crew = None


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _slices(jobs: Sequence[Job], max_jobs: int) -> list[list[bytes]]:
    """The jobs in ASCII JSON, in slices of at most ``max_jobs`` jobs. A job too large for a slice is one alone."""
    slices: list[list[bytes]] = []
    num_bytes = 0
    for job in jobs:
        encoded = json.dumps(job).encode()
        num_bytes += len(encoded)
        if not slices or len(slices[-1]) == max_jobs or num_bytes > _MAX_SLICE_BYTES:
            slices.append([])
            num_bytes = len(encoded)
        slices[-1].append(encoded)
    return slices


class _Zygote:
    """The process that forks workers. It ends them and itself when its control socket is closed."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair()
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        search_path = os.pathsep.join(filter(None, [_ROOT, kept.get("PYTHONPATH")]))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.verifier.sandbox.child", str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**kept, **_STEADY_ENVIRONMENT, "PYTHONPATH": search_path},
                start_new_session=True,  # Ctrl-C is for the parent
            )

    def fork(self) -> socket.socket:
        """Ask for a worker; the answer is the socket on which it will say its process id."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def end(self) -> None:
        self._control.close()
        self.process.terminate()
        try:
            self.process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def abandon(self) -> None:
        """In a forked process: it is not ours to end, but its socket must not stay open here."""
        self._control.close()
        self.process.returncode = 0


class _Crew:
    """The running processes of a pool, and the threads that serve them. Its methods are called under ``_lock``."""

    def __init__(self, num_children: int, timeout_s: float, arguments: Sequence[str]) -> None:
        self.tasks: queue.SimpleQueue[tuple[list[bytes], Future[list[Comparison]]] | None] = queue.SimpleQueue()
        self.is_ended = False
        self._arguments = arguments
        self._zygote: _Zygote | None = _Zygote(arguments)
        self.workers = [_Worker(self, timeout_s + _MARGIN_S) for _ in range(num_children)]
        for worker in self.workers:
            worker.start()

    def submit(self, encoded_jobs: list[bytes]) -> Future[list[Comparison]]:
        future: Future[list[Comparison]] = Future()
        self.tasks.put((encoded_jobs, future))
        return future

    def zygote(self) -> _Zygote:
        self._zygote = self._zygote or _Zygote(self._arguments)
        return self._zygote

    def drop(self, zygote: _Zygote | None) -> None:
        """End a process that no longer forks, unless another thread has done so."""
        if zygote and self._zygote is zygote:
            self._zygote = None
            zygote.end()

    def end(self) -> None:
        self.is_ended = True
        self.drop(self._zygote)
        for _ in self.workers:
            self.tasks.put(None)

    def abandon(self) -> None:
        if self._zygote:
            self._zygote.abandon()
        for worker in self.workers:
            worker.hang_up()

    def pids(self) -> list[int]:
        zygote = [self._zygote.process.pid] if self._zygote else []
        return zygote + [worker.pid for worker in self.workers if worker.pid]


class _Worker(threading.Thread):
    """One worker process, whichever it is at the time, and the thread that gives it jobs."""

    def __init__(self, crew: _Crew, patience_s: float) -> None:
        super().__init__(name="sandbox-pool", daemon=True)
        self._crew = crew
        self._patience_s = patience_s
        self._socket: socket.socket | None = None
        self._start_error: OSError | None = None
        self.pid = 0
        """0: not ready."""

    def run(self) -> None:
        self._refresh()
        while task := self._crew.tasks.get():
            encoded_jobs, future = task
            try:
                future.set_result(self._compare(encoded_jobs))
            except Exception as error:
                future.set_exception(error)
            self._refresh()  # at once, not with the next jobs
        self.hang_up()

    def _compare(self, encoded_jobs: list[bytes]) -> list[Comparison]:
        replies = b""
        while len(replies) < len(encoded_jobs):
            replies += self._replies(encoded_jobs[len(replies) :])
        return [_COMPARISONS[reply & ~LAST] for reply in replies]

    def _replies(self, encoded_jobs: list[bytes]) -> bytes:
        """One byte per job, up to and with the one at which the worker ended."""
        connection = self._ready_socket()
        replies = b""
        try:
            connection.settimeout(self._patience_s)  # for each call below, and so for each job
            connection.sendall(b"[" + b",".join(encoded_jobs) + b"]\n")
            while len(replies) < len(encoded_jobs) and not (replies and replies[-1] & LAST):
                replies += _receive(connection, len(encoded_jobs))
        except OSError as error:
            if isinstance(error, TimeoutError):  # its socket is open, so the process id is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self._check_not_ended()
            replies += bytes([encode(Comparison(failure="timeout")) | LAST])
        if replies[-1] & LAST:
            self.hang_up()
        return replies

    def _ready_socket(self) -> socket.socket:
        for _ in range(_MAX_STARTS):
            self._check_not_ended()
            self._refresh()
            if self._socket:
                return self._socket
        raise RuntimeError(
            f"a grading child must start within {_START_TIMEOUT_S:g} s: see its message on stderr"
        ) from self._start_error

    def _check_not_ended(self) -> None:
        if self._crew.is_ended:
            raise RuntimeError("the grading pool was closed during a call")

    def _refresh(self) -> None:
        """Have a living worker, if one can be had. One that ended while it had nothing to do is replaced unseen."""
        if self._socket and _is_at_end(self._socket):
            self.hang_up()
        if self._socket:
            return
        zygote = None
        try:
            with _lock:
                if self._crew.is_ended:
                    return
                zygote = self._crew.zygote()
                self._socket = zygote.fork()
            self._socket.settimeout(_START_TIMEOUT_S)
            self.pid = int.from_bytes(_receive(self._socket, 4), "big")
        except OSError as error:
            self._start_error = error
            self.hang_up()
            if not isinstance(error, ConnectionResetError):  # else only the worker need be gone
                with _lock:
                    self._crew.drop(zygote)

    def hang_up(self) -> None:
        self.pid = 0
        if self._socket:
            self._socket.close()
            self._socket = None


def _receive(connection: socket.socket, max_bytes: int) -> bytes:
    received = connection.recv(max_bytes)
    if not received:
        raise ConnectionResetError
    return received


def _is_at_end(connection: socket.socket) -> bool:
    """Between two slices there is nothing to read but the end."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


_lock = threading.Lock()
"""Held while processes and sockets are made or ended, so that no fork of the caller sees them half made."""
_pools: "weakref.WeakSet[SandboxPool]" = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._forget()
    _lock.release()


def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)
