"""The learner workers of a stage as ranks of one process group."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from pipeline.errors import ModelError

T = TypeVar("T")


class Ranks:
    """This worker among all learner workers. Without a process group it is the only one.

    Args:
        device: where numbers are summed; nccl needs them on the GPU.
    """

    def __init__(self, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._device = device

    @property
    def is_first(self) -> bool:
        """Rank 0 writes files and talks to the weight store."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's contiguous part of a global batch."""
        size = len(items) // self.size
        return items[self.rank * size : (self.rank + 1) * size]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Numbers, each summed over all workers in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(total)
        return cast(list[float], total.tolist())

    def sum_in_place(self, tensor: torch.Tensor) -> None:
        """Sum a tensor over all workers."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def gather(self, items: list[T]) -> list[T]:
        """The items of all workers, in the order of their ranks."""
        if self.size == 1:
            return items
        parts: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def to_first(self, tensor: torch.Tensor | None, owner: int, like: torch.Tensor) -> torch.Tensor | None:
        """One worker's tensor on rank 0, where it is moved to the CPU; None on the others. Workers that are neither
        the owner nor rank 0 need not take part.

        Args:
            tensor: the owner's; ignored elsewhere.
            like: has its shape, precision and device.
        """
        if self.is_first:
            if owner == self.rank:
                return tensor
            received = torch.empty_like(like, memory_format=torch.contiguous_format)
            dist.recv(received, src=owner)
            return received.cpu()
        if owner == self.rank and tensor is not None:
            dist.send(tensor.contiguous(), dst=0)
        return None

    def from_first(self, make: Callable[[], T]) -> T:
        """Make a value on rank 0 and give it to all workers."""
        values = [make() if self.is_first else None]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return cast(T, values[0])

    def check_equal(self, digest: str, what: str) -> None:
        """Raises ModelError, on every worker, if they do not all have the same digest."""
        digests = self.gather([digest])
        if others := [rank for rank, other in enumerate(digests) if other != digests[0]]:
            raise ModelError(
                f"all learners must have the same {what}, got other ones on ranks {others} than on rank 0: their sum "
                "of gradients would mean nothing. Compare the model's files on their nodes."
            )

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()
