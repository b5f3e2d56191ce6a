"""Spreads the chunks of a file to grade over a Ray cluster."""

import logging
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable
from pathlib import Path

import ray
import ray.exceptions

import pipeline
from pipeline.errors import ClusterError, GradusError
from pipeline.grading.chunks import CHUNKS_PER_WORKER, GradedChunk, GradeSettings, grade_chunk
from pipeline.grading.tables import Chunk

WAIT_S = 60


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
    waiting: deque[ray.ObjectRef[GradedChunk]] = deque()
    busy: list[ray.ObjectRef[GradedChunk]] = []
    try:
        for chunk in chunks:
            if len(busy) == limit:
                busy = _wait(busy)
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
    joins = "RAY_ADDRESS" in os.environ
    is_submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # then the cluster already has our code
    try:
        ray.init(
            address=None if joins else "local",
            num_cpus=None if joins else num_workers,
            include_dashboard=None if joins else False,
            runtime_env={"py_modules": [str(Path(pipeline.__file__).parent)]} if joins and not is_submitted else None,
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ClusterError(f"no Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {reason}") from None


def _wait(refs: "list[ray.ObjectRef[GradedChunk]]") -> "list[ray.ObjectRef[GradedChunk]]":
    """Wait until one is ready; returns the others."""
    while True:
        ready, pending = ray.wait(refs, timeout=WAIT_S, fetch_local=False)
        if ready:
            return list(pending)
        print(f"waiting for {len(pending)} chunks: is a CPU of the cluster free?", file=sys.stderr, flush=True)


def _result(ref: "ray.ObjectRef[GradedChunk]") -> GradedChunk:
    _wait([ref])
    try:
        graded: GradedChunk = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GradusError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ClusterError(f"the cluster lost a chunk: {' '.join(str(error).split())[:300]}") from None
    return graded
