"""The learners of a run: one group of Ray Train workers, which keeps its processes from stage to stage."""

import logging
import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer, DatasetsCallback

from actors.calls import TRANSFER_S
from actors.driver.actor_plan import plan_learners
from actors.driver.cluster import lent_room
from actors.learner.feed import StageFeed, learn_stages
from actors.learner.process_group import ProcessGroup
from actors.learner.setup import StageSetup
from pipeline.config import Config, LearnerConfig
from pipeline.errors import ClusterError

logger = logging.getLogger(__name__)
START_RETRIES = 3
"""Ray Train waits a minute for room each time. There was room just before: something else took it."""
POLL_S = 0.2
END_S = 60.0
"""Maximum seconds for idle workers to end."""


class Learners:
    """Trains stages one after another in one group of workers. A group that failed is replaced for the next stage.

    The driver of a chain has one object of this class. A search has one for each stage that may run at a time, as an
    actor.

    Args:
        run_path: of the run or the search.
        room: the name under which the workers' room is held.
    """

    def __init__(self, run_path: Path, room: str | None) -> None:
        self._run_path, self._room = run_path, room
        self._group: _Group | None = None

    def start(self, config: Config) -> None:
        """Start the workers, unless they run with these settings already. Does not wait for them."""
        if self._group and self._group.fits(config):
            return
        self.close()
        self._group = _Group(config, self._run_path, self._room)

    def train(self, setup: StageSetup) -> None:
        """Train one stage to its end.

        Raises:
            TrainingFailedError, RayError: a worker or the group failed.
            ClusterError: there is no room for the group.
        """
        self.start(setup.config)
        assert self._group is not None
        self._group.train(setup)

    def close(self) -> None:
        """End the workers."""
        if self._group:
            self._group.close()
        self._group = None


class _Group:
    """One Ray Train job, which runs in a thread until its feed ends or a worker fails."""

    def __init__(self, config: Config, run_path: Path, room: str | None) -> None:
        self._config, self._run_path, self._room = config, run_path, room
        self._feed = ray.remote(StageFeed).options(num_cpus=0).remote(config.learner.num_workers)
        self._num_stages = 0
        self._is_idle, self._has_feed = True, True
        self._end: Future[None] = Future()
        threading.Thread(target=self._run, name="learners", daemon=True).start()

    def _run(self) -> None:
        limit_s = self._config.limits.placement_s
        try:
            with lent_room([plan_learners(self._config)], limit_s, self._room):
                _trainer(self._config, self._run_path, self._feed).fit()
        except BaseException as error:  # the caller of train gets it
            self._end.set_exception(error)
        else:
            self._end.set_result(None)

    def fits(self, config: Config) -> bool:
        """True if it runs and was started with the same settings."""
        own = self._config
        return self._has_feed and not self._end.done() and (own.learner, own.limits) == (config.learner, config.limits)

    def train(self, setup: StageSetup) -> None:
        try:
            self._train(setup)
        except ray.exceptions.RayError:
            self._has_feed = False  # workers that lose their feed end
            raise

    def _train(self, setup: StageSetup) -> None:
        self._is_idle = False
        ray.get(self._feed.put.remote([ray.put(setup)]), timeout=TRANSFER_S)
        trained = self._feed.is_trained.remote(self._num_stages)
        while not self._end.done():
            if ray.wait([trained], timeout=POLL_S)[0]:
                if ray.get(trained, timeout=TRANSFER_S):
                    self._num_stages += 1
                    self._is_idle = True
                    return
                trained = self._feed.is_trained.remote(self._num_stages)
        self._end.result(timeout=0)
        raise ray.exceptions.RayError("the learners ended before their stage")

    def close(self) -> None:
        """Idle workers end by themselves; busy ones with the actor that they report to."""
        if self._end.done():
            return
        if not self._is_idle:
            ray.kill(self._feed)
            return
        try:
            ray.get(self._feed.put.remote([]), timeout=TRANSFER_S)
            self._end.result(END_S)
        except (TrainingFailedError, ray.exceptions.RayError, ClusterError, TimeoutError):
            logger.exception("the learners did not end well")


class _Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Without Ray Train's process for data sets: learners read theirs from files."""

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, DatasetsCallback)]


def _trainer(config: Config, run_path: Path, feed: object) -> _Trainer:
    """The group as a Ray Train job."""
    learner = config.learner
    resources = {"CPU": learner.num_cpus, "memory": learner.memory_gib * 2**30}
    if learner.num_gpus:
        resources["GPU"] = learner.num_gpus
    return _Trainer(
        learn_stages,
        train_loop_config={"feed": feed},
        backend_config=ProcessGroup(timeout_s=int(config.limits.collective_s)),
        scaling_config=ScalingConfig(
            num_workers=learner.num_workers, use_gpu=learner.num_gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=f"learners_{time.time_ns()}",  # a name used before would silently resume that run
            storage_path=str(run_path / "ray_train"),
            # fit_stage restarts: it knows progress from a standstill, and a certain error from an accident.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=START_RETRIES),
            worker_runtime_env={"env_vars": learner_environment(learner)},
        ),
    )


def learner_environment(config: LearnerConfig) -> dict[str, str]:
    """Environment variables of a learner's process.

    On a CPU it uses the jemalloc that comes with Ray, set to keep freed memory. The C library would return that memory
    to the system, and every step would fault the same pages in again. Memory that is unused for a minute may be
    reclaimed by the system. The user's own LD_PRELOAD and MALLOC_CONF take precedence.
    """
    variables = {"OMP_NUM_THREADS": str(config.num_threads)}
    jemalloc = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    if config.num_gpus == 0 and jemalloc.exists():
        keeping = "oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:-1,background_thread:true"
        variables["LD_PRELOAD"] = os.environ.get("LD_PRELOAD") or str(jemalloc)
        variables["MALLOC_CONF"] = os.environ.get("MALLOC_CONF") or keeping
    return variables
