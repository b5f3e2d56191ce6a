"""Trains one stage: its setup, its TorchTrainer, and the error if it fails."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import ray
import ray.exceptions
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from actors.calls import describe_error
from actors.driver.actor_plan import plan_learners
from actors.driver.cluster import lent_room
from actors.driver.plan import PlannedChain
from actors.driver.written import tasks_of, with_written
from actors.handles import ActorHandles
from actors.learner.grpo_loop import grpo_loop
from actors.learner.memory_loop import memory_loop
from actors.learner.router_loop import router_loop
from actors.learner.setup import StageSetup
from actors.learner.sft_loop import sft_loop
from pipeline.config import LearnerConfig
from pipeline.curriculum.replay import ReplayBuffer, read_trained
from pipeline.curriculum.stages import StageSpec
from pipeline.data.tokens import TokenTable
from pipeline.errors import ClusterError, GradusError
from pipeline.runs.directory import RunDirectory
from pipeline.runs.notices import notify
from pipeline.runs.starvation import watch_starvation

logger = logging.getLogger(__name__)
START_RETRIES = 3
"""Ray Train waits a minute for room each time. There was room just before: something else took it."""


def stage_setup(
    chain: PlannedChain,
    index: int,
    run_path: Path,
    tokens: TokenTable,
    earlier: Sequence[Path],
    actors: ActorHandles,
    *,
    parent: Path | None = None,
    is_last: bool = False,
) -> StageSetup:
    """Everything that the learner workers of a chain's stage are given.

    Args:
        earlier: checkpoints of the chain's stages before this one, in order.
        parent: the checkpoint to start from if ``run_path`` holds none.
        is_last: the run ends with this stage.
    """
    stage = chain.stages[index]
    buffer = _replay_buffer(stage.spec, chain.spec.config.seed, earlier)
    problems = stage.problems
    if stage.spec.written_frac:
        problems, tokens = with_written(chain, index, earlier, run_path)
    return StageSetup(
        config=chain.spec.config,
        stage=stage.spec,
        run_path=run_path,
        problems=problems,
        tokens=tokens,
        held_out=chain.held_out,
        tasks=tasks_of(stage.spec, chain),
        buffer=buffer,
        replayed=buffer.pick(chain.problems) if buffer else chain.problems[:0],
        parent=parent,
        is_last=is_last,
        actors=actors,
    )


def _replay_buffer(spec: StageSpec, seed: int, earlier: Sequence[Path]) -> ReplayBuffer | None:
    """The problems that a stage can replay; None if it replays nothing."""
    if spec.replay is None:
        return None
    buffer = ReplayBuffer(spec.replay.capacity, spec.replay.sampling, seed)
    return buffer.add(item for source in spec.replay.sources for item in read_trained(earlier[source]))


def fit_stage(setup: StageSetup) -> None:
    """Train one stage to its end, and evaluate it. Learners that fail are restarted from the last checkpoint.

    Raises:
        GradusError: they failed more than ``learner.max_failures`` times without a new checkpoint in between, or for a
            reason that a restart would not change. The full traceback is in the driver's log.
    """
    checkpoints = RunDirectory(setup.run_path).checkpoints
    config, num_failures = setup.config, 0
    while True:
        reached = checkpoints.latest_progress()
        try:
            with lent_room([plan_learners(config)], config.limits.placement_s, setup.actors.learner_room):
                _trainer(setup).fit()
            return
        except (TrainingFailedError, ray.exceptions.RayError) as error:
            logger.exception("stage %s failed", setup.stage.name)
            failure = _stage_error(setup, error)
            has_progressed = checkpoints.latest_progress() != reached
            num_failures = 1 if has_progressed else num_failures + 1
            if not isinstance(failure, ClusterError) or num_failures > config.learner.max_failures:
                raise failure from error
            notify(f"{failure} Restart {num_failures} of {config.learner.max_failures}.")


def train_stage(setup: StageSetup) -> None:
    """The loop of the stage's kind, in a learner worker."""
    loops = {"sft": sft_loop, "grpo": grpo_loop, "memory_sft": memory_loop, "router": router_loop}
    loops[setup.stage.kind](setup)


def _run_learner(loop_config: dict[str, StageSetup]) -> None:
    """The whole life of a learner's process."""
    watch_starvation()
    train_stage(loop_config["setup"])


def _trainer(setup: StageSetup) -> TorchTrainer:
    """The stage as a Ray Train job."""
    learner = setup.config.learner
    resources = {"CPU": learner.num_cpus, "memory": learner.memory_gib * 2**30}
    if learner.num_gpus:
        resources["GPU"] = learner.num_gpus
    return TorchTrainer(
        _run_learner,
        train_loop_config={"setup": setup},
        torch_config=TorchConfig(timeout_s=int(setup.config.limits.collective_s)),
        scaling_config=ScalingConfig(
            num_workers=learner.num_workers, use_gpu=learner.num_gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=f"{setup.stage.name}_{time.time_ns()}",  # a name used before would silently resume that run
            storage_path=str(setup.run_path / "ray_train"),
            # fit_stage restarts: it knows progress from a standstill, and a certain error from an accident.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=START_RETRIES),
            worker_runtime_env={"env_vars": learner_environment(learner)},
        ),
    )


def learner_environment(config: LearnerConfig) -> dict[str, str]:
    """Environment variables of a learner's process.

    On a CPU it uses the jemalloc that comes with Ray, set to keep freed memory: the C library returns it to the system,
    and every step then faults the same pages in again. After a minute unused, the system may reclaim it. The user's
    own LD_PRELOAD and MALLOC_CONF take precedence.
    """
    variables = {"OMP_NUM_THREADS": str(config.num_threads)}
    jemalloc = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    if config.num_gpus == 0 and jemalloc.exists():
        keeping = "oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:-1,background_thread:true"
        variables["LD_PRELOAD"] = os.environ.get("LD_PRELOAD") or str(jemalloc)
        variables["MALLOC_CONF"] = os.environ.get("MALLOC_CONF") or keeping
    return variables


def _stage_error(setup: StageSetup, error: Exception) -> GradusError:
    """A worker's user error, unchanged; any other failure as one line that says where the logs are."""
    failures = [getattr(failure, "cause", failure) for failure in getattr(error, "worker_failures", {}).values()]
    for failure in failures:
        if isinstance(failure, GradusError) and not isinstance(failure, ClusterError):
            return failure
    failure = failures[0] if failures else error
    reason = str(failure) if isinstance(failure, ClusterError) else describe_error(failure)
    return ClusterError(
        f"stage {setup.stage.name} failed: {reason.rstrip('.')}. The full traceback is in {setup.run_path / 'logs'}; "
        "--resume continues from the last checkpoint."
    )
