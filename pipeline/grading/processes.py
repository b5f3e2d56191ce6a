"""Spreads chunks over processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from pipeline.errors import ClusterError
from pipeline.grading.chunks import CHUNK_LIMIT_S, CHUNKS_PER_WORKER, GradedChunk, GradeSettings, grade_chunk
from pipeline.grading.tables import Chunk


def over_processes(
    settings: GradeSettings, chunks: Iterable[Chunk], num_workers: int
) -> Generator[GradedChunk, None, None]:
    """A ``Spread`` over processes of this machine. They end with this process, however it ends.

    Raises:
        ClusterError: a process was killed, or hangs.
    """
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    waiting: deque[Future[GradedChunk]] = deque()
    try:
        for chunk in chunks:
            waiting.append(executor.submit(grade_chunk, settings, chunk))
            if len(waiting) == CHUNKS_PER_WORKER * num_workers:
                yield waiting.popleft().result(timeout=CHUNK_LIMIT_S)
        while waiting:
            yield waiting.popleft().result(timeout=CHUNK_LIMIT_S)
    except BrokenProcessPool:
        raise ClusterError(
            "a grading process was killed from outside, perhaps for lack of memory. Lower --num-workers."
        ) from None
    except TimeoutError:
        raise ClusterError(
            f"a chunk must be graded within {CHUNK_LIMIT_S:g} s, got nothing: its process hangs."
        ) from None
    finally:
        if waiting:  # stopped early: the results of running chunks are of no use
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        executor.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
