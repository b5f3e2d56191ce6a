"""Versioned weights: packed by the learner, held by the store, pulled by the engines."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.types import WeightId


class TensorSpec(NamedTuple):
    name: str
    dtype: str
    """Of torch, such as ``bfloat16``."""
    shape: tuple[int, ...]
    offset: int
    """First byte in the buffer."""
    num_bytes: int


@dataclass(frozen=True)
class PackedWeights:
    """All weights of a model in one buffer: one object to copy, share and map without pickling."""

    buffer: np.ndarray
    """[num_bytes] uint8."""
    specs: tuple[TensorSpec, ...]

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """(name, torch tensor) views of the buffer. Read them only."""
        import torch

        whole = torch.from_numpy(self.buffer)
        for spec in self.specs:
            part = whole[spec.offset : spec.offset + spec.num_bytes]
            yield spec.name, part.view(getattr(torch, spec.dtype)).view(spec.shape)


def pack_weights(named_tensors: Iterable[tuple[str, Any]]) -> PackedWeights:
    """Copy (name, torch tensor) pairs into one buffer, each part aligned to 64 bytes."""
    tensors, specs, offset = [], [], 0
    for name, tensor in named_tensors:
        specs.append(
            TensorSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), offset, tensor.nbytes)
        )
        tensors.append(tensor)
        offset += -(-tensor.nbytes // 64) * 64
    packed = PackedWeights(np.empty(offset, dtype=np.uint8), tuple(specs))
    for (_, view), tensor in zip(packed.tensors(), tensors, strict=True):
        view.copy_(tensor.detach())
    return packed


class WeightStore:
    """Holds the newest weights in the object store, owned by this actor: they outlive the learner.

    actors/driver/launch.py makes it a Ray actor.
    """

    def __init__(self) -> None:
        self._attempt = time.time_ns()
        self._id: WeightId | None = None
        self._ref: Any = None

    def next_attempt(self) -> int:
        """A new number for each learner group that publishes here: it makes their weight ids new. It grows, also over
        a restart of this actor."""
        self._attempt += 1
        return self._attempt

    def publish(self, weight_id: WeightId, weights: PackedWeights) -> None:
        """Replace what is held. Ids of an older attempt are refused: a dying learner may still send."""
        import ray

        if self._id is not None and weight_id < self._id:
            raise ValueError(f"weights {weight_id} are older than {self._id}")
        self._ref = None  # freed first: a whole model less in memory
        self._ref = ray.put(weights)
        self._id = weight_id

    def locate(self) -> tuple[WeightId | None, list[Any]]:
        """The id held and, in a list so that Ray does not resolve it, the reference to its PackedWeights."""
        return self._id, [self._ref]
