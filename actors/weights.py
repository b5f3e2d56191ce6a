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
    """Name of a torch dtype, such as ``bfloat16``."""
    shape: tuple[int, ...]
    offset: int
    """First byte in the buffer."""
    num_bytes: int


@dataclass(frozen=True)
class PackedWeights:
    """All weights of a model in one buffer, which is copied, shared and mapped without pickling."""

    buffer: np.ndarray
    """[num_bytes] uint8."""
    specs: tuple[TensorSpec, ...]

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """(name, torch tensor) views of the buffer, which may be read-only."""
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
