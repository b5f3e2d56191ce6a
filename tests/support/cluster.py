"""One Ray for many tests, with actors that serve one run after another."""

import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.driver import launch, search
from actors.driver.actor_plan import engine_limits
from actors.driver.start import RESTARTS, end_process, engine_options, make_actor
from actors.engine_loop import is_as_new
from actors.handles import ActorHandles
from actors.reward import RewardWorker
from actors.rollout import RolloutWorker
from actors.weights import PackedWeights, WeightStore
from pipeline.config import Config
from pipeline.types import WeightId
from tests.support.recipes import tiny_config

Pull = Callable[[WeightId], tuple[WeightId, PackedWeights]]
QUIET = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one fewer process to start per stage
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}


@contextmanager
def private_ray() -> Iterator[str]:
    """Start a Ray of four logical CPUs and connect to it. Yields its address, for jobs that join it."""
    with tempfile.TemporaryDirectory(prefix="gradus-", dir="/tmp", ignore_cleanup_errors=True) as short:
        context = ray.init(  # sockets need short paths
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=500 * 2**20,
            logging_level=logging.WARNING,
            log_to_driver=False,
            _temp_dir=short,
        )
        try:
            yield context.address_info["gcs_address"]
        finally:
            ray.shutdown()


def joining(address: str) -> dict[str, str]:
    """Environment of a job that joins the Ray at this address."""
    return {**os.environ, "RAY_ADDRESS": address, **QUIET}


def alone() -> dict[str, str]:
    """Environment of a job that starts a Ray of its own."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | QUIET


@dataclass(frozen=True)
class RayActors:
    """Started once. Weight ids are new in every run, so engines never answer with weights of an earlier one."""

    slots: tuple[ActorHandles, ...]
    """For stages that run at the same time: one engine each."""
    pair: ActorHandles
    """Both engines, for one stage at a time."""
    directory: Path
    """Of their logs."""
    pull: Pull
    """From any of their stores."""

    def start(self, config: Any, run_path: Path, slot: int = 0) -> ActorHandles:
        """Stands for ``start_actors``."""
        actors = self.pair if config.rollout.num_workers == 2 else self.slots[slot]
        store: Any = actors.weight_store  # every run has a new one: the attempts of a run that was resumed only rise
        ray.get(store.__ray_call__.remote(WeightStore.__init__), timeout=60)
        return actors


def start_ray_actors(model: Path, directory: Path) -> RayActors:
    config = tiny_config(model, directory)
    (directory / "logs").mkdir()
    names = [f"{directory}-{index}" for index in range(2)]
    stores = [make_actor(WeightStore, directory, n[-1], **RESTARTS, name=n, num_cpus=0).remote() for n in names]
    pull = partial(_pull_from_any, tuple(names))
    engines = [start_engine(config, directory, f"engine_{index}", pull) for index in range(2)]
    grader_options = RESTARTS | {"num_cpus": 0, "allow_out_of_order_execution": True}
    grader = make_actor(RewardWorker, directory, "grader", **grader_options).remote(config)
    while free_cpus() > ray.cluster_resources()["CPU"] - 2 * config.rollout.num_cpus + 1e-6:
        time.sleep(0.1)  # from here on, what is free tells whether other actors have ended
    slots = tuple(ActorHandles((engine,), (grader,), store) for engine, store in zip(engines, stores, strict=True))
    return RayActors(slots, ActorHandles(tuple(engines), (grader,), stores[0]), directory, pull)


def start_engine(config: Config, directory: Path, log_name: str, pull: Pull) -> Any:
    arguments = (config.rollout, config.model, *engine_limits(config), pull, end_process)
    return make_actor(RolloutWorker, directory, log_name, **engine_options(config.rollout)).remote(*arguments)


def _pull_from_any(store_names: tuple[str, ...], weight_id: WeightId) -> tuple[WeightId, PackedWeights]:
    for name in store_names:
        held, (ref,) = ray.get(ray.get_actor(name).locate.remote(), timeout=60)
        if is_as_new(held, weight_id):
            weights: PackedWeights = ray.get(ref, timeout=60)
            return held, weights
    raise LookupError(f"no store holds weights {weight_id}")


def run_on(address: str, actors: RayActors, main: Callable[[list[str]], object], *arguments: object) -> None:
    """Run a training job in this process, on a Ray that this process is connected to, with actors that already run."""
    interrupt = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_ADDRESS": address, **QUIET}.items():
            patch.setenv(name, value)
        for module in (launch, search):
            patch.setattr(module, "start_actors", actors.start)
        try:
            main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGINT, interrupt)  # Ray Train leaves its own


def free_cpus() -> float:
    """CPUs of the Ray that no actor reserves."""
    return float(ray.available_resources().get("CPU", 0.0))


def wait_until_free(num_cpus: float, timeout_s: float = 60.0) -> None:
    """Wait until this many CPUs are free, and so a dead driver's actors have ended."""
    deadline = time.monotonic() + timeout_s
    while free_cpus() < num_cpus - 1e-6:
        assert time.monotonic() < deadline, f"{free_cpus():g} CPUs are free, not {num_cpus:g}"
        time.sleep(0.1)
