"""Calls to actors: the one place that waits for their answers and turns a failed actor into an error."""

import logging
from collections.abc import Sequence
from typing import TypeVar

import ray
import ray.exceptions

from actors.handles import Ref
from pipeline.errors import ClusterError, GradusError

logger = logging.getLogger(__name__)
T = TypeVar("T")
REPORT_EVERY_S = 60.0


def wait_for(refs: Sequence[Ref[T]], what: str, num_returns: int = 1) -> list[Ref[T]]:
    """The refs that are ready, at least ``num_returns`` of them. Logs every minute what it is waiting for."""
    while True:
        ready, pending = ray.wait(list(refs), num_returns=num_returns, timeout=REPORT_EVERY_S)
        if len(ready) >= num_returns:
            return list(ready)
        logger.warning("waiting for %s: %d of %d still pending", what, len(pending), len(refs))


def result_of(ref: Ref[T], who: str) -> T:
    """The result of a call.

    Args:
        who: the actor, as an error message names it: ``an engine``.

    Raises:
        GradusError: raised inside the actor, as it was raised there.
        ClusterError: the call failed in any other way, or the actor died more often than Ray restarts it.
    """
    try:
        answer: T = ray.get(ref)
        return answer
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, GradusError):
            raise cause from None
        logger.exception("%s failed", who)
        raise ClusterError(f"{who} failed: {describe_error(cause or error)}") from error


def results_of(refs: Sequence[Ref[T]], what: str, who: str) -> list[T]:
    """The results of all calls, in order, once all of them are ready."""
    wait_for(refs, what, len(refs))
    return [result_of(ref, who) for ref in refs]


def describe_error(error: BaseException) -> str:
    """Its type and the last line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else ''}"
