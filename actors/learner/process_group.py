"""Joins the workers of a group of learners into a torch process group.

Ray Train's controller runs this. Ray's own ``TorchConfig`` would import torch there and in the driver: 2 s and 150 MB
each. The learners' processes call the functions behind it.
"""

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import BackendConfig
from ray.train.backend import Backend

START_S = 300.0
"""Maximum seconds for the learners' processes to import torch."""
LEAVE_S = 30.0


@dataclass
class ProcessGroup(BackendConfig):  # type: ignore[misc]
    """nccl for learners with GPUs, gloo for others.

    Args:
        timeout_s: for one collective operation.
    """

    timeout_s: int

    @property
    def backend_cls(self) -> type[Backend]:
        return _Joining

    @property
    def train_func_context(self) -> "type[_OwnDevice]":
        return _OwnDevice


class _OwnDevice:
    """Makes a learner's GPU, if it has one, the default of its process."""

    def __enter__(self) -> None:
        from ray.train.torch.config import TorchConfigContextManager

        TorchConfigContextManager().__enter__()

    def __exit__(self, *error: object) -> None:
        pass


class _Joining(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, ProcessGroup)
        timeout_s, size = backend_config.timeout_s, len(worker_group)
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo"
        address = worker_group.execute_single(0, _free_address)
        joined = [
            worker_group.execute_single_async(rank, _join, backend, address, rank, size, timeout_s)
            for rank in range(size)
        ]
        ray.get(joined, timeout=START_S + timeout_s)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        if len(worker_group) > 1:
            left = worker_group.execute_async(_leave)
            ray.wait(left, num_returns=len(left), timeout=LEAVE_S)


def _free_address() -> tuple[str, str]:
    from ray.train._internal.utils import get_address_and_port

    address, port = get_address_and_port()
    return address, str(port)


def _join(backend: str, address: tuple[str, str], rank: int, size: int, timeout_s: int) -> None:
    from ray.train.torch import config

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(backend, rank, size, "env://", timeout_s)


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
