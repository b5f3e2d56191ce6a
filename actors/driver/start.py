"""Starts the actors of a run: the only place where classes become Ray actors."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.calls import Limit, results_of
from actors.driver.actor_plan import engine_limits, engine_width, frozen_models, plan_actors
from actors.driver.cluster import give_back, reserve
from actors.engine_loop import is_as_new
from actors.handles import ActorHandles, WeightStoreHandle
from actors.reward import RewardWorker
from actors.rollout import RolloutWorker, engine_environment
from actors.solver import EngineNames, frozen_model, make_solver
from actors.weights import PackedWeights, WeightStore
from pipeline.config import Config, EngineConfig
from pipeline.runs.logs import log_to_file
from pipeline.runs.starvation import watch_starvation
from pipeline.types import WeightId

RESTARTS = {"max_restarts": 20, "max_task_retries": 5}


def start_actors(config: Config, run_path: Path, slot: int = 0) -> ActorHandles:
    """Start engines, graders and a weight store, once there is room for them and for the learners. Ray restarts those
    that die.

    Args:
        slot: tells these actors from others of the same run. A set serves one stage at a time.

    Raises:
        ClusterError: there is no room.
    """
    rollout, reward = config.rollout, config.reward
    plans = {plan.name: plan for plan in plan_actors(config)}
    tag = f"_{slot}" if slot else ""
    learner_room = f"learners-{run_path.name}{tag}"
    served = [plans["rollout"], plans["frozen"], plans["reward"]]
    placement = reserve(served, config.limits.placement_s, [plans["learner"]], learner_room)
    place = places(placement)
    # Engines find the store by name: an actor with handles among its constructor arguments restarts only while
    # whoever created it still holds them.
    names = EngineNames(run_path.name, tag)
    store_name = f"weights-{run_path.name}{tag}"
    store_options = RESTARTS | {"name": store_name, "num_cpus": 0}
    store = make_actor(WeightStore, run_path, f"weight_store{tag}", **store_options).remote()
    pull = partial(_pull_weights, store_name, config.limits.store_s)
    engine_arguments = (rollout, config.model, engine_limits(config)[0], engine_width(config), pull, end_process)
    grader_options = RESTARTS | {"num_cpus": reward.num_cpus, "memory": int(reward.memory_gib * 2**30)}
    grader_options["allow_out_of_order_execution"] = True  # a group must not wait for those asked for before it
    solve = make_solver(config, names, plans["rollout"].count)
    engines = [(f"rollout{tag}_{index}", names.policy(index)) for index in range(plans["rollout"].count)]
    return ActorHandles(
        rollout_workers=tuple(
            make_actor(RolloutWorker, run_path, log, name=name, **engine_options(rollout), **next(place)).remote(
                *engine_arguments
            )
            for log, name in engines
        ),
        frozen={
            model: make_actor(
                RolloutWorker,
                run_path,
                f"frozen{tag}_{index}",
                name=names.frozen(model),
                **engine_options(rollout),
                **next(place),
            ).remote(rollout, frozen_model(config, model), *engine_limits(config), _never_pull, end_process)
            for index, model in enumerate(frozen_models(config))
        },
        reward_workers=tuple(
            make_actor(RewardWorker, run_path, f"reward{tag}_{index}", **grader_options, **next(place)).remote(
                config, solve
            )
            for index in range(plans["reward"].count)
        ),
        weight_store=store,
        placement=placement,
        learner_room=learner_room,
    )


def stop_actors(actors: ActorHandles) -> None:
    """End the actors, and give back their room."""
    for actor in (*actors.rollout_workers, *actors.frozen.values(), *actors.reward_workers, actors.weight_store):
        ray.kill(actor)
    if actors.placement:
        remove_placement_group(actors.placement)
    if actors.learner_room:
        give_back(actors.learner_room)


def places(placement: PlacementGroup | None) -> Iterator[dict[str, Any]]:
    """Ray's option for each actor in turn: its bundle of the reserved room."""
    index = 0
    while True:
        yield {"scheduling_strategy": PlacementGroupSchedulingStrategy(placement, index)} if placement else {}
        index += 1


def engine_options(rollout: EngineConfig) -> dict[str, Any]:
    """Ray's options for an engine's actor."""
    return RESTARTS | {
        "num_cpus": rollout.num_cpus,
        "num_gpus": rollout.num_gpus,
        "memory": int(rollout.memory_gib * 2**30),
        "runtime_env": {"env_vars": engine_environment(rollout)},
    }


def end_process() -> None:
    """End this actor's process at once, whatever its threads and children do: Ray replaces it."""
    os._exit(1)


def make_actor(worker: type, run_path: Path, log_name: str, **options: Any) -> Any:
    """The class as a Ray actor class whose process logs into the run directory."""

    class Logged(worker):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            log_to_file(run_path, log_name)
            watch_starvation()
            super().__init__(*arguments)

    Logged.__name__ = Logged.__qualname__ = worker.__name__
    return ray.remote(Logged).options(**options)


def _never_pull(weight_id: WeightId) -> tuple[WeightId, PackedWeights]:
    raise LookupError(f"a frozen model must be asked without weights, got {weight_id}")


def _pull_weights(store_name: str, limit_s: float, weight_id: WeightId) -> tuple[WeightId, PackedWeights]:
    """The weights that the store holds: these, or newer ones of the same attempt."""
    store: WeightStoreHandle = ray.get_actor(store_name)
    limit = Limit(limit_s, "limits.store_s")
    ((held, (ref,)),) = results_of({store.locate.remote(): store}, "the weight store", "the weight store", limit)
    if held is None or not is_as_new(held, weight_id):
        raise LookupError(f"the store must hold weights {weight_id}, got {held}")
    (weights,) = results_of({ref: None}, f"weights {weight_id}", "the object store", limit)
    return held, weights
