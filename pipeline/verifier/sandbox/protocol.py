"""The messages between the pool and its child processes: slices of jobs as JSON, and one byte per comparison."""

import json
from collections.abc import Callable, Sequence

from pipeline.verifier.verdict import Comparison, Job

Comparer = Callable[[str, str, bool], tuple[bool | None, bool | None] | None]
"""(answer, gold, all_methods) -> equal symbolically, equal numerically; None if the gold answer cannot be read."""

_MAX_SLICE_BYTES = 48 * 1024
"""Fits into a socket's buffer, so a slice is sent whole whatever the worker is doing."""

# A worker's reply to a job is one byte: the index of a comparison, and whether the worker ends now.
_COMPARISONS = [Comparison(a, b) for a in (None, False, True) for b in (None, False, True)]
_COMPARISONS += [Comparison(failure="timeout"), Comparison(failure="bad_gold")]
LAST = 0x80


def encode(comparison: Comparison, *, is_last: bool = False) -> bytes:
    """The reply of a worker, one byte."""
    return bytes([_COMPARISONS.index(comparison) | (LAST if is_last else 0)])


def decode(reply: int) -> Comparison:
    return _COMPARISONS[reply & ~LAST]


def slices(jobs: Sequence[Job], max_jobs: int) -> list[list[bytes]]:
    """The jobs as ASCII JSON, in slices of at most ``max_jobs``. A job too large for a slice is alone in its own."""
    grouped: list[list[bytes]] = []
    num_bytes = 0
    for job in jobs:
        encoded = json.dumps(job).encode()
        num_bytes += len(encoded)
        if not grouped or len(grouped[-1]) == max_jobs or num_bytes > _MAX_SLICE_BYTES:
            grouped.append([])
            num_bytes = len(encoded)
        grouped[-1].append(encoded)
    return grouped


def line(encoded_jobs: Sequence[bytes]) -> bytes:
    """A slice, or the rest of one, as the line that a worker reads."""
    return b"[" + b",".join(encoded_jobs) + b"]\n"
