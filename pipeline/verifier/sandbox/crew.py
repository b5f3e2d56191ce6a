"""The running processes of a pool, and the threads that serve them.

A zygote (``child.py``) has imported sympy and forks the workers. Each thread owns one worker and gives it slices of
jobs. A worker that dies or is late costs only the job it was working on, which gets ``timeout``. It is replaced at
once, and the replacement takes over the rest of the slice.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pipeline
from pipeline.verifier.sandbox.protocol import LAST, decode, encode, line
from pipeline.verifier.verdict import Comparison

_START_TIMEOUT_S = 120.0
_MAX_STARTS = 3
_END_TIMEOUT_S = 1.0
_KILL_TIMEOUT_S = 60.0
_MARGIN_S = 0.5
"""A worker is ended by its own alarm at its deadline, and killed this much later."""
_ROOT = str(Path(pipeline.__file__).resolve().parents[1])
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH")
_STEADY_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
"""Only a single-threaded process can fork safely, and sympy's results must not depend on a run's hash seed."""

lock = threading.Lock()
"""Held while processes and sockets are created or closed, so that no fork of the caller sees them half done."""


class Crew:
    """One zygote and ``num_children`` worker threads. Call its methods under ``lock``."""

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

    def zygote(self) -> "_Zygote":
        self._zygote = self._zygote or _Zygote(self._arguments)
        return self._zygote

    def drop(self, zygote: "_Zygote | None") -> None:
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
        """Close the inherited sockets in a forked process; the children stay with their owner."""
        if self._zygote:
            self._zygote.abandon()
        for worker in self.workers:
            worker.hang_up()

    def pids(self) -> list[int]:
        zygote = [self._zygote.process.pid] if self._zygote else []
        return zygote + [worker.pid for worker in self.workers if worker.pid]


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
        """Ask for a worker. Returns the socket on which it will send its process id."""
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
            self.process.wait(_KILL_TIMEOUT_S)

    def abandon(self) -> None:
        """In a forked process: it is not ours to end, but its socket must not stay open here."""
        self._control.close()
        self.process.returncode = 0


class _Worker(threading.Thread):
    """The thread that gives jobs to one worker process, and replaces the process when it ends."""

    def __init__(self, crew: Crew, patience_s: float) -> None:
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
        return [decode(reply) for reply in replies]

    def _replies(self, encoded_jobs: list[bytes]) -> bytes:
        """One byte per job, up to and including the one during which the worker ended."""
        connection = self._ready_socket()
        replies = b""
        try:
            connection.settimeout(self._patience_s)  # for each call below, and so for each job
            connection.sendall(line(encoded_jobs))
            while len(replies) < len(encoded_jobs) and not (replies and replies[-1] & LAST):
                replies += _receive(connection, len(encoded_jobs))
        except OSError as error:
            if isinstance(error, TimeoutError):  # its socket is open, so the process id is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self._check_not_ended()
            replies += encode(Comparison(failure="timeout"), is_last=True)
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
        """Start a worker process unless a living one is connected. One that ended while idle is replaced silently."""
        if self._socket and _is_at_end(self._socket):
            self.hang_up()
        if self._socket:
            return
        zygote = None
        try:
            with lock:
                if self._crew.is_ended:
                    return
                zygote = self._crew.zygote()
                self._socket = zygote.fork()
            self._socket.settimeout(_START_TIMEOUT_S)
            self.pid = int.from_bytes(_receive(self._socket, 4), "big")
        except OSError as error:
            self._start_error = error
            self.hang_up()
            if not isinstance(error, ConnectionResetError):  # a reset may mean that only the worker is gone
                with lock:
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
    """Between two slices there is nothing to read but the end of the stream."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
