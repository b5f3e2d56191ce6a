"""Spreads the chunks of a file to grade over a Ray cluster."""

from collections import deque
from collections.abc import Generator, Iterable

import ray

from actors.calls import Limit, results_of, wait_for
from actors.connection import connect_with_code
from actors.handles import Ref
from pipeline.grading.chunks import CHUNK_LIMIT_S, CHUNKS_PER_WORKER, GradedChunk, GradeSettings, grade_chunk
from pipeline.grading.tables import Chunk

_CHUNKS = "graded chunks"
_LIMIT = Limit(CHUNK_LIMIT_S, "pipeline.grading.chunks.CHUNK_LIMIT_S")


def over_ray(
    settings: GradeSettings, chunks: Iterable[Chunk], num_workers: int | None
) -> Generator[GradedChunk, None, None]:
    """A ``Spread`` over the cluster at RAY_ADDRESS, or over a private Ray on this machine.

    Args:
        num_workers: chunks graded at once. None: two for every CPU of the cluster, so that none is ever idle.

    Raises:
        ClusterError: the cluster cannot be reached, or lost a chunk more often than Ray retries it.
    """
    connect_with_code(num_cpus=num_workers)
    task = ray.remote(num_cpus=1)(grade_chunk)
    limit = num_workers or 2 * int(ray.cluster_resources().get("CPU", 1))
    waiting: deque[Ref[GradedChunk]] = deque()
    busy: list[Ref[GradedChunk]] = []
    try:
        for chunk in chunks:
            if len(busy) == limit:
                for ref in wait_for(dict.fromkeys(busy), _CHUNKS, _LIMIT):
                    busy.remove(ref)
            ref = task.remote(settings, chunk)
            waiting.append(ref)
            busy.append(ref)
            if len(waiting) == CHUNKS_PER_WORKER * limit:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        ray.shutdown()


def _result(ref: Ref[GradedChunk]) -> GradedChunk:
    (graded,) = results_of({ref: None}, _CHUNKS, "the cluster", _LIMIT)
    return graded
