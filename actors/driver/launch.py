"""From a configuration to a finished run: the only place where classes become Ray actors.

``run`` goes through the stages in order. A stage is one TorchTrainer whose workers run a loop of
actors/learner/loops.py; engines and graders stay up from the first stage to the last.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from actors.driver.encode import make_tokens
from actors.driver.plan import (
    ActorPlan,
    StagePlan,
    chain_record,
    check_held_out,
    engine_limits,
    held_out_problems,
    needed_resources,
    plan_actors,
    plan_stages,
    replay_buffer,
    settle_dtype,
)
from actors.learner.loops import grpo_loop, sft_loop
from actors.learner.session import StageSetup
from actors.reward import RewardWorker
from actors.rollout import RolloutWorker, engine_environment
from actors.weights import PackedWeights, WeightStore
from pipeline.config import Config, LearnerConfig, RolloutConfig
from pipeline.curriculum.stages import ChainSpec
from pipeline.data import load_problems
from pipeline.data.table import data_cache, load_table
from pipeline.errors import CheckpointError, ClusterError, GradusError
from pipeline.files import write_json
from pipeline.models.hub import resolve_model
from pipeline.report import write_report
from pipeline.runs.directory import RunDirectory
from pipeline.runs.logs import log_to_file
from pipeline.runs.progress import follow_progress
from pipeline.runs.trackers import check_trackers
from pipeline.training.rewards import resolve
from pipeline.types import WeightId

logger = logging.getLogger(__name__)
RESTARTS = {"max_restarts": 20, "max_task_retries": 5}


def run(config: Config, run_directory: RunDirectory | None = None) -> RunDirectory:
    """Run every stage that is not done yet, then write the report.

    Args:
        run_directory: of a run to go on with; None makes a new one, once everything else is known to be there.

    Raises:
        GradusError: something the configuration names cannot be had.
    """
    if run_directory:
        run_directory.require_kind("chain")
    for term in config.reward.functions:
        resolve(term.name)
    check_trackers(config.tracking)
    config = settle_dtype(config)
    problems = load_table(config.data, "train", data_cache(config))
    evaluates = config.eval.problems_per_level > 0
    held_out = held_out_problems(config, load_problems(config.data, "eval")) if evaluates else []
    stages = plan_stages(config, problems)
    check_held_out(config, stages, held_out)
    num_done = _num_done(stages, run_directory)
    resolve_model(config.model)
    with connected_ray():
        wait_for_resources(plan_actors(config))
        run_directory = run_directory or RunDirectory.create(config)
        run_directory.save_config(config)
        if config.curriculum:
            chain = ChainSpec("chain", "default", config.seed, False, {}, config)
            record = chain_record(chain, stages, [None] * len(stages))
            write_json(run_directory.path / "chains.json", {"kind": "chain", "chains": [record]})
        print(f"run directory: {run_directory.path}", flush=True)
        run_directory.checkpoints.refresh_links()
        log_to_file(run_directory.path, "driver")
        if num_done < len(stages):
            tokens = make_tokens(problems, config.model, chat=config.data.prompt_template is None)
        with _progress_shown(run_directory.path, sum(stage.num_steps for stage in stages)):
            actors = start_actors(config, run_directory.path) if num_done < len(stages) else {}
            for stage in stages[num_done:]:
                buffer = replay_buffer(config, stage.spec, list(run_directory.checkpoints.stage_results().values()))
                fit_stage(
                    StageSetup(
                        config=config,
                        stage=stage.spec,
                        run_path=run_directory.path,
                        problems=stage.problems,
                        tokens=tokens,
                        eval_problems=tuple(held_out),
                        buffer=buffer,
                        replayed=buffer.pick(problems) if buffer else problems[:0],
                        parent=None,
                        is_last=stage is stages[-1],
                        **actors,
                    )
                )
    write_report(run_directory.path)
    return run_directory


def fit_stage(setup: StageSetup) -> None:
    """Train one stage to its end, and evaluate it.

    Raises:
        GradusError: it failed more often than ``learner.max_failures`` allows.
    """
    with _explained(setup):
        _trainer(setup).fit()


def _trainer(setup: StageSetup) -> TorchTrainer:
    """One stage as a Ray Train job. A worker group that dies is started again from the last checkpoint."""
    learner = setup.config.learner
    loop = sft_loop if setup.stage.kind == "sft" else grpo_loop
    resources = {"CPU": learner.num_cpus, "memory": learner.memory_gib * 2**30}
    if learner.num_gpus:
        resources["GPU"] = learner.num_gpus
    return TorchTrainer(
        lambda loop_config: loop(loop_config["setup"]),
        train_loop_config={"setup": setup},
        torch_config=TorchConfig(timeout_s=6 * 3600),
        scaling_config=ScalingConfig(
            num_workers=learner.num_workers, use_gpu=learner.num_gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=f"{setup.stage.name}_{time.time_ns()}",  # a name used before would silently resume that run
            storage_path=str(setup.run_path / "ray_train"),
            failure_config=FailureConfig(max_failures=learner.max_failures),
            worker_runtime_env={"env_vars": learner_environment(learner)},
        ),
    )


def learner_environment(config: LearnerConfig) -> dict[str, str]:
    """Variables of a learner's process. On a CPU what a step frees stays with the process, in the jemalloc that Ray
    comes with: the C library gives it back to the system, and every step faults the same pages in again. After a minute
    unused, the system may take it. LD_PRELOAD and MALLOC_CONF of the user's own stand."""
    variables = {"OMP_NUM_THREADS": str(config.num_threads)}
    jemalloc = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    if config.num_gpus == 0 and jemalloc.exists():
        keeping = "oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:-1,background_thread:true"
        variables["LD_PRELOAD"] = os.environ.get("LD_PRELOAD") or str(jemalloc)
        variables["MALLOC_CONF"] = os.environ.get("MALLOC_CONF") or keeping
    return variables


@contextmanager
def _explained(setup: StageSetup) -> Iterator[None]:
    """A failure in the block ends as one message; the whole story goes to the driver's log."""
    try:
        yield
    except TrainingFailedError as error:
        logger.exception("stage %s failed", setup.stage.name)
        raise _stage_error(setup, error) from error


def _stage_error(setup: StageSetup, error: TrainingFailedError) -> GradusError:
    """What went wrong in the workers: a user's mistake as it is, anything else in a line, with the logs' place."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, GradusError):
            return cause
    failure = failures[0] if failures else error
    last_line = f"{type(failure).__name__}: {(str(failure).strip().splitlines() or [''])[-1]}"
    return ClusterError(
        f"stage {setup.stage.name} failed: {last_line}. The whole story is in {setup.run_path / 'logs'}; "
        "--resume goes on from the last checkpoint."
    )


def start_actors(config: Config, run_path: Path, slot: int = 0) -> dict[str, Any]:
    """Engines, graders and the weight store, as handles. Engines and graders that die are started again.

    Args:
        slot: sets them apart from others of the run. A set serves one stage at a time.
    """
    rollout, reward = config.rollout, config.reward
    # Engines find the store by name: an actor with handles among its constructor arguments restarts only while
    # whoever made it still holds them.
    counts = {actor.name: actor.count for actor in plan_actors(config)}
    tag = f"_{slot}" if slot else ""
    store_name = f"weights-{run_path.name}{tag}"
    store = make_actor(
        WeightStore, run_path, f"weight_store{tag}", name=store_name, num_cpus=0, max_restarts=20
    ).remote()
    engine_arguments = (rollout, config.model, *engine_limits(config), partial(_pull_weights, store_name))
    grader_options = RESTARTS | {"num_cpus": reward.num_cpus, "memory": int(reward.memory_gib * 2**30)}
    return {
        "rollout_workers": tuple(
            make_actor(RolloutWorker, run_path, f"rollout{tag}_{index}", **engine_options(rollout)).remote(
                *engine_arguments
            )
            for index in range(counts["rollout"])
        ),
        "reward_workers": tuple(
            make_actor(RewardWorker, run_path, f"reward{tag}_{index}", **grader_options).remote(reward)
            for index in range(counts["reward"])
        ),
        "weight_store": store,
    }


def engine_options(rollout: RolloutConfig) -> dict[str, Any]:
    """What Ray is told of an engine's actor."""
    return RESTARTS | {
        "num_cpus": rollout.num_cpus,
        "num_gpus": rollout.num_gpus,
        "memory": int(rollout.memory_gib * 2**30),
        "runtime_env": {"env_vars": engine_environment(rollout)},
    }


def make_actor(worker: type, run_path: Path, log_name: str, **options: Any) -> Any:
    """The class as a Ray actor class whose process logs into the run directory."""

    class Logged(worker):
        def __init__(self, *arguments: Any) -> None:
            log_to_file(run_path, log_name)
            super().__init__(*arguments)

    Logged.__name__ = Logged.__qualname__ = worker.__name__
    return ray.remote(Logged).options(**options)


def _pull_weights(store_name: str, weight_id: WeightId) -> PackedWeights:
    store: Any = ray.get_actor(store_name)
    held, (ref,) = ray.get(store.locate.remote())
    if held != weight_id:
        raise LookupError(f"weights {weight_id} were asked for, the store holds {held}")
    return ray.get(ref)


def _num_done(stages: Sequence[StagePlan[Any]], run_directory: RunDirectory | None) -> int:
    """How many stages are done. Raises CheckpointError when the run stopped in one that is not among them."""
    progress = run_directory.checkpoints.latest_progress() if run_directory else None
    if progress is None:
        return 0
    names = [stage.spec.name for stage in stages]
    if progress.stage not in names:
        raise CheckpointError(f"stages must hold {progress.stage}, where the run stopped, got {names}.")
    num_done = names.index(progress.stage) + progress.stage_done
    done = list(run_directory.checkpoints.stage_results()) if run_directory else []
    if any(stage.spec.replay for stage in stages) and done != names[:num_done]:
        raise CheckpointError(f"the stages that are done must be the first of {names}, got {done}.")
    return num_done


def _joins_cluster() -> bool:
    return "RAY_ADDRESS" in os.environ


@contextmanager
def connected_ray() -> Iterator[None]:
    """Connect to the cluster a job was submitted to, or start a private Ray on this machine."""
    joins = _joins_cluster()
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # report() waits for it: 2 s by default
    if not joins:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one process less to start for every stage
    ray.init(
        address=None if joins else "local",
        include_dashboard=None if joins else False,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _progress_shown(run_path: Path, total_steps: int) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=follow_progress, args=(run_path, total_steps, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def wait_for_resources(plan: list[ActorPlan]) -> None:
    """Raises ClusterError, naming what is missing, when the cluster cannot hold all actors in time.

    A cluster may still be growing; a private Ray on this machine never does.
    """
    timeout_s = 60.0 if _joins_cluster() else 0.0
    needed = needed_resources(plan)
    deadline = time.monotonic() + timeout_s
    while True:
        there = ray.available_resources()
        missing = {name: amount for name, amount in needed.items() if there.get(name, 0.0) < amount}
        if not missing:
            return
        if time.monotonic() > deadline:
            name, amount = next(iter(missing.items()))
            unit = 2**30 if name == "memory" else 1
            what = "GiB of memory" if name == "memory" else f"{name}s"
            raise ClusterError(
                f"the cluster must have {amount / unit:g} {what} free for all actors, got "
                f"{there.get(name, 0.0) / unit:.3g} in {timeout_s:g} s. Lower num_workers, num_cpus, num_gpus or "
                "memory_gib of learner, rollout or reward (--dry-run lists them), or add a node."
            )
        time.sleep(1)
