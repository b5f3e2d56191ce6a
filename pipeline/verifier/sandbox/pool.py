"""Comparisons that can be killed: a pool of child processes, a deadline per job, no signals in the caller.

``crew.py`` runs the processes, ``child.py`` is the code inside them, and ``protocol.py`` what the two sides send.
"""

import atexit
import os
import weakref
from collections.abc import Sequence

from pipeline.verifier.sandbox.crew import Crew, lock
from pipeline.verifier.sandbox.protocol import slices
from pipeline.verifier.verdict import Comparison, Job

_SLICE_LIMIT_S = 3600.0
_END_LIMIT_S = 60.0
_MAX_SLICE_JOBS = 16


class SandboxPool:
    """Compares jobs in ``num_children`` worker processes.

    Safe to use from any thread. A forked process that inherits a pool leaves the children to their owner and starts
    its own with its first call. Starting never counts against a deadline.

    Args:
        num_children: by default one for each core that this process may use, at most 4.
        timeout_s: wall-clock seconds for one job.
        memory_limit_mib: memory for one job, on top of the worker's own.
        comparer: ``module:function`` from which the workers import their ``Comparer``.
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
        self._crew: Crew | None = None
        _pools.add(self)

    def __enter__(self) -> "SandboxPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the children now; returns before they are ready."""
        with lock:
            self._started()

    def compare(self, jobs: Sequence[Job]) -> list[Comparison]:
        """One comparison per job, in order. Blocks.

        Raises:
            RuntimeError: the children cannot be started, or the pool was closed during the call.
            TimeoutError: a slice took an hour, though every job in it has a deadline: a bug of ours.
        """
        sliced = slices(jobs, max_jobs=min(_MAX_SLICE_JOBS, 1 + len(jobs) // (4 * self._num_children)))
        with lock:
            futures = [self._started().submit(encoded_jobs) for encoded_jobs in sliced]
        return [comparison for future in futures for comparison in future.result(timeout=_SLICE_LIMIT_S)]

    def close(self) -> None:
        """End the children, including those at work. A later call starts new ones."""
        with lock:
            crew, self._crew = self._crew, None
            if crew:
                crew.end()
        for worker in crew.workers if crew else []:
            worker.join(_END_LIMIT_S)

    def child_pids(self) -> list[int]:
        """The process that forks the workers, then the workers that are ready. Empty before the start."""
        with lock:
            return self._crew.pids() if self._crew else []

    def _started(self) -> Crew:
        if self._crew is None:
            self._crew = Crew(self._num_children, self._timeout_s, self._arguments)
        return self._crew

    def _forget(self) -> None:
        if self._crew:
            self._crew.abandon()
        self._crew = None


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_pools: "weakref.WeakSet[SandboxPool]" = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._forget()
    lock.release()


def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=_after_fork)
