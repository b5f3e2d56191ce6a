"""Grade the chunks of a file on a Ray cluster."""

import logging
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

import pipeline
from pipeline.errors import ClusterError, GradusError
from pipeline.grading.files import CHUNKS_PER_WORKER, Chunk, GradedChunk, GradeSettings, grade_chunk


def over_ray(
    settings: GradeSettings, chunks: Iterable[Chunk], num_workers: int | None
) -> Generator[GradedChunk, None, None]:
    """A ``Spread`` over the cluster that RAY_ADDRESS names, or over a private Ray on this machine.

    Args:
        num_workers: chunks in work at once. None: two for every CPU of the cluster, so that none is ever idle.

    Raises:
        ClusterError: the cluster cannot be reached, or lost a chunk more often than Ray tries again.
    """
    _connect(num_workers)
    task = ray.remote(num_cpus=1)(grade_chunk)
    limit = num_workers or 2 * int(ray.cluster_resources().get("CPU", 1))
    waiting: deque[Any] = deque()
    busy: list[Any] = []
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
    is_submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # then the cluster has our code already
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


def _wait(refs: list[Any]) -> list[Any]:
    """The refs that are not ready once one of them is."""
    while True:
        ready, rest = ray.wait(refs, timeout=60, fetch_local=False)
        if ready:
            return rest
        print(f"waiting for {len(rest)} chunks: is a CPU of the cluster free?", file=sys.stderr, flush=True)


def _result(ref: Any) -> GradedChunk:
    _wait([ref])
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GradusError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ClusterError(f"the cluster lost a chunk: {' '.join(str(error).split())[:300]}") from None
