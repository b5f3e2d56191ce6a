"""Calls to actors: the one place that waits for their answers and turns a failed actor into an error."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import ray
import ray.exceptions

from actors.handles import Ref
from pipeline.errors import ClusterError, GradusError
from pipeline.runs.waits import report_wait

logger = logging.getLogger(__name__)
T = TypeVar("T")
REPORT_EVERY_S = 60.0
"""Seconds between two lines that say what is waited for."""
TRANSFER_S = 600.0
"""Maximum seconds for an answer that is ready to reach this process."""


class NoAnswerError(ClusterError):
    """No call was answered in time."""


class Limit(NamedTuple):
    """How long a wait may last."""

    seconds: float
    setting: str
    """Where it is set."""


def put(value: T) -> Ref[T]:
    """A reference to a value that several calls share."""
    ref: Ref[T] = ray.put(value)
    return ref


def wait_for(
    calls: Mapping[Ref[T], object], what: str, limit: Limit, check: Callable[[], None] | None = None
) -> list[Ref[T]]:
    """Wait for an answer, and return answered calls, at least one. Reports every minute what it is waiting for.

    Args:
        calls: each with its actor, or None.
        what: ``completions``.
        limit: after it the actors are restarted, so that they answer whoever calls next.
        check: called every minute; raises if waiting is in vain.

    Raises:
        NoAnswerError: no call is answered in time.
    """
    started = time.monotonic()
    while True:
        left_s = started + limit.seconds - time.monotonic()
        ready, pending = ray.wait(list(calls), num_returns=1, timeout=min(REPORT_EVERY_S, max(left_s, 0.0)))
        if ready:
            return list(ready)
        waited_s = time.monotonic() - started
        if waited_s >= limit.seconds:
            _restart(calls.values())
            raise NoAnswerError(
                f"{what} must arrive within {limit.seconds:g} s, got none of {len(pending)}. See the logs; if it is "
                f"only slow, raise {limit.setting}"
            )
        report_wait(f"{what} ({len(pending)} calls unanswered)", waited_s, limit.seconds)
        if check:
            check()


def results_of(
    calls: Mapping[Ref[T], object], what: str, who: str, limit: Limit, check: Callable[[], None] | None = None
) -> list[T]:
    """The results of all calls, in order. Arguments and errors are those of ``wait_for`` and ``result_of``.

    Args:
        limit: how long to wait without any new answer.
    """
    pending = dict(calls)
    while pending:
        for ref in wait_for(pending, what, limit, check):
            del pending[ref]
    return [result_of(ref, who) for ref in calls]


def result_of(ref: Ref[T], who: str) -> T:
    """The result of a call that is ready.

    Args:
        who: the actor, as an error message names it: ``an engine``.

    Raises:
        GradusError: raised inside the actor, as it was raised there.
        ClusterError: the call failed in any other way, or the actor died more often than Ray restarts it.
    """
    try:
        answer: T = ray.get(ref, timeout=TRANSFER_S)
        return answer
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, GradusError):
            raise cause from None
        logger.exception("%s failed", who)
        raise ClusterError(f"{who} failed: {describe_error(cause or error)}") from error


def _restart(actors: Iterable[object]) -> None:
    for actor in set(actors) - {None}:
        ray.kill(actor, no_restart=False)


def describe_error(error: BaseException) -> str:
    """Its type and the last line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else ''}"
