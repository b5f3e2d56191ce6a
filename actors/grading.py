"""Spreads the chunks of a file to grade over a Ray cluster."""

import os
from collections import deque
from collections.abc import Generator, Iterable
from pathlib import Path

import ray

import pipeline
from actors.calls import Limit, results_of, wait_for
from actors.connection import connect, joins_cluster
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
    _connect(num_workers)
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


def _connect(num_workers: int | None) -> None:
    if not joins_cluster():
        connect(num_cpus=num_workers)
    elif "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # submitted: the cluster already has our code
        connect()
    else:
        connect(runtime_env={"py_modules": [str(Path(pipeline.__file__).parent)]})


def _result(ref: Ref[GradedChunk]) -> GradedChunk:
    (graded,) = results_of({ref: None}, _CHUNKS, "the cluster", _LIMIT)
    return graded
