"""Versioned weights: packed by the learner, held by the store, pulled by the engines."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xxhash

from pipeline.types import WeightId


class TensorSpec(NamedTuple):
    name: str
    dtype: str
    """Name of a torch dtype, such as ``bfloat16``."""
    shape: tuple[int, ...]
    offset: int
    """First byte in the buffer."""
    num_bytes: int


class Probe(NamedTuple):
    """A text and what the weights say about it, so that an engine can prove that it answers with them."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The learner's log-probability of each token but the first, given the tokens before it."""


@dataclass(frozen=True)
class PackedWeights:
    """All weights of a model in one buffer, which is copied, shared and mapped without pickling."""

    buffer: np.ndarray
    """[num_bytes] uint8."""
    specs: tuple[TensorSpec, ...]
    checksum: str
    """XXH3 of the buffer as it was packed, 16 hex digits."""
    probe: Probe | None = None

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """(name, torch tensor) views of the buffer, which may be read-only."""
        return _views(self.buffer, self.specs)

    def verify(self) -> None:
        """Raises ValueError if the buffer is not the one that was packed."""
        if (arrived := _checksum(self.buffer)) != self.checksum:
            raise ValueError(f"weights must arrive as they were packed, got checksum {arrived}, not {self.checksum}")


def _checksum(buffer: np.ndarray) -> str:
    return xxhash.xxh3_64_hexdigest(buffer.data)


def _views(buffer: np.ndarray, specs: Iterable[TensorSpec]) -> Iterator[tuple[str, Any]]:
    import torch

    whole = torch.from_numpy(buffer)
    for spec in specs:
        part = whole[spec.offset : spec.offset + spec.num_bytes]
        yield spec.name, part.view(getattr(torch, spec.dtype)).view(spec.shape)


def pack_weights(
    sizes: Iterable[tuple[str, Any, Sequence[int]]],
    named_tensors: Iterable[tuple[str, Any]],
    probe: Probe | None = None,
) -> PackedWeights:
    """Copy (name, torch tensor) pairs into one buffer, each part aligned to 64 bytes. Holds one tensor at a time.

    Args:
        sizes: (name, torch dtype, shape) of all tensors, in their order.
    """
    specs, offset = [], 0
    for name, dtype, shape in sizes:
        num_bytes = dtype.itemsize * math.prod(shape)
        specs.append(TensorSpec(name, str(dtype).removeprefix("torch."), tuple(shape), offset, num_bytes))
        offset += -(-num_bytes // 64) * 64
    buffer = np.zeros(offset, dtype=np.uint8)
    for (name, view), (given, tensor) in zip(_views(buffer, specs), named_tensors, strict=True):
        if name != given:
            raise ValueError(f"tensors must come in the order of their sizes, got {given}, not {name}")
        view.copy_(tensor.detach())
    return PackedWeights(buffer, tuple(specs), _checksum(buffer), probe)


class WeightStore:
    """Holds the newest weights in the object store, owned by this actor: they outlive the learner.

    actors/driver/start.py makes it a Ray actor.
    """

    def __init__(self) -> None:
        self._attempt = time.time_ns()
        self._id: WeightId | None = None
        self._ref: Any = None

    def next_attempt(self) -> int:
        """A number for a learner group that publishes here, larger than all before, even if this actor was restarted.
        It makes the group's weight ids new."""
        self._attempt += 1
        return self._attempt

    def publish(self, weight_id: WeightId, weights: PackedWeights) -> None:
        """Replace the weights held. Ids of an older attempt are refused, because a dying learner may still send."""
        import ray

        if self._id is not None and weight_id < self._id:
            raise ValueError(f"weights {weight_id} are older than {self._id}")
        self._ref = None  # freed first, so that two models are never in memory
        self._ref = ray.put(weights)
        self._id = weight_id

    def locate(self) -> tuple[WeightId | None, list[Any]]:
        """The id of the weights held and, in a list so that Ray does not resolve it, the reference to them."""
        return self._id, [self._ref]
