"""Starts the actors of a run: the only place where classes become Ray actors."""

from functools import partial
from pathlib import Path
from typing import Any

import ray

from actors.calls import result_of
from actors.driver.actor_plan import engine_limits, plan_actors
from actors.handles import ActorHandles, WeightStoreHandle
from actors.reward import RewardWorker
from actors.rollout import RolloutWorker, engine_environment
from actors.weights import PackedWeights, WeightStore
from pipeline.config import Config, RolloutConfig
from pipeline.runs.logs import log_to_file
from pipeline.runs.starvation import watch_starvation
from pipeline.types import WeightId

RESTARTS = {"max_restarts": 20, "max_task_retries": 5}


def start_actors(config: Config, run_path: Path, slot: int = 0) -> ActorHandles:
    """Start engines, graders and a weight store. Ray restarts engines and graders that die.

    Args:
        slot: tells these actors from others of the same run. A set serves one stage at a time.
    """
    rollout, reward = config.rollout, config.reward
    # Engines find the store by name: an actor with handles among its constructor arguments restarts only while
    # whoever created it still holds them.
    counts = {actor.name: actor.count for actor in plan_actors(config)}
    tag = f"_{slot}" if slot else ""
    store_name = f"weights-{run_path.name}{tag}"
    store = make_actor(
        WeightStore, run_path, f"weight_store{tag}", name=store_name, num_cpus=0, max_restarts=20
    ).remote()
    engine_arguments = (rollout, config.model, *engine_limits(config), partial(_pull_weights, store_name))
    grader_options = RESTARTS | {"num_cpus": reward.num_cpus, "memory": int(reward.memory_gib * 2**30)}
    return ActorHandles(
        rollout_workers=tuple(
            make_actor(RolloutWorker, run_path, f"rollout{tag}_{index}", **engine_options(rollout)).remote(
                *engine_arguments
            )
            for index in range(counts["rollout"])
        ),
        reward_workers=tuple(
            make_actor(RewardWorker, run_path, f"reward{tag}_{index}", **grader_options).remote(reward)
            for index in range(counts["reward"])
        ),
        weight_store=store,
    )


def engine_options(rollout: RolloutConfig) -> dict[str, Any]:
    """Ray's options for an engine's actor."""
    return RESTARTS | {
        "num_cpus": rollout.num_cpus,
        "num_gpus": rollout.num_gpus,
        "memory": int(rollout.memory_gib * 2**30),
        "runtime_env": {"env_vars": engine_environment(rollout)},
    }


def make_actor(worker: type, run_path: Path, log_name: str, **options: Any) -> Any:
    """The class as a Ray actor class whose process logs into the run directory."""

    class Logged(worker):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            log_to_file(run_path, log_name)
            watch_starvation()
            super().__init__(*arguments)

    Logged.__name__ = Logged.__qualname__ = worker.__name__
    return ray.remote(Logged).options(**options)


def _pull_weights(store_name: str, weight_id: WeightId) -> PackedWeights:
    store: WeightStoreHandle = ray.get_actor(store_name)
    held, (ref,) = result_of(store.locate.remote(), "the weight store")
    if held != weight_id:
        raise LookupError(f"the store must hold weights {weight_id}, got {held}")
    return result_of(ref, "the object store")
