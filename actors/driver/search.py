"""A search over curricula: every stage of every chain is one trial of one Tuner.

The driver plans all chains, starts one set of engines per stage that may run at a time, and hands stages to Tune
through StageSearcher. A trial trains one stage in a directory of its own, ``stages/<key>``, and ends by writing
``results/<key>.json``. A stage that has a result is never run again.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray import tune

from actors.calls import describe_error
from actors.driver.actor_plan import ActorPlan, needed_resources
from actors.driver.checks import check_plan
from actors.driver.cluster import connected_ray, has_room, wait_for_room
from actors.driver.drawing import require_draws, with_next_draws
from actors.driver.encode import make_tokens
from actors.driver.launch import announce, open_run, write_report
from actors.driver.learners import Learners
from actors.driver.plan import PlannedChain, RunPlan, plan_search
from actors.driver.resume import check_inputs, inputs_of, pinned, refuse
from actors.driver.stage import fit_stage, stage_setup
from actors.driver.start import RESTARTS, make_actor, start_actors, stop_actors
from actors.driver.tune_searcher import StageSearcher
from actors.handles import ActorHandles
from actors.learner.setup import StageSetup
from pipeline.config import Config, SearchConfig
from pipeline.curriculum.markers import read_markers, write_marker
from pipeline.curriculum.stage_queue import StageQueue, make_queue
from pipeline.data.tokens import TokenTable
from pipeline.errors import GradusError
from pipeline.files import link, remove_stale, write_json
from pipeline.models.hub import resolve_model
from pipeline.runs.atlas import write_atlas
from pipeline.runs.checkpoints import read_progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.inputs import Inputs
from pipeline.runs.ledger_check import announce_ledger
from pipeline.runs.logs import log_to_file
from pipeline.runs.notices import notices_shown

TRIAL_CPUS = 0.01
"""Tune requires a trial to reserve some CPU."""


@dataclass(frozen=True)
class SharedByTrials:
    """Everything that the trials of a search share."""

    run_path: Path
    chains: dict[str, PlannedChain]
    tokens: dict[str, TokenTable]
    """Tokens of the chains' training problems, by the digest of their table."""


@dataclass(frozen=True)
class SlotActors:
    """All actors of one stage at a time."""

    served: ActorHandles
    learners: Any
    """Handle of a Learners."""


class Slots:
    """The actors of each stage that may run at a time.

    Args:
        start: starts a set of actors, given a number that no set had before.
    """

    def __init__(self, start: Callable[[int], SlotActors], num_slots: int) -> None:
        self._start = start
        self._actors = [start(slot) for slot in range(num_slots)]
        self._num_started = num_slots

    def __len__(self) -> int:
        return len(self._actors)

    def actors(self, slot: int) -> SlotActors:
        return self._actors[slot]

    def replace(self, slot: int) -> None:
        """Start new actors, after a stage failed: an engine may be dead, or busy with what that stage asked of it."""
        ray.kill(self._actors[slot].learners)
        stop_actors(self._actors[slot].served)
        self._actors[slot] = self._start(self._num_started)
        self._num_started += 1

    def close(self) -> None:
        """End the learners: on a Ray that goes on running, nothing else would."""
        for slot in self._actors:
            ray.kill(slot.learners)


def run_search(config: Config, run_directory: RunDirectory | None = None) -> RunDirectory:
    """Run all stages of all chains that have no result yet, and write the report. Repeat this for every round of draws.

    Args:
        run_directory: a search to resume.

    Raises:
        GradusError: something the configuration names is unavailable.
    """
    run_directory = _run_round(config, run_directory)
    while more := with_next_draws(run_directory.load_config(), run_directory.path):
        run_directory = _run_round(more, run_directory)
    return run_directory


def _run_round(config: Config, run_directory: RunDirectory | None) -> RunDirectory:
    plan, inputs = _plan(config, run_directory)
    chains = plan.chains
    settings = plan.config.search or SearchConfig()
    queue = make_queue([chain.spec for chain in chains], [chain.keys for chain in chains], settings)
    check_plan(plan, resolve_model(plan.config.model))
    with ExitStack() as held:
        with connected_ray():
            num_slots = count_slots(plan)
            run_directory = held.enter_context(open_run(plan, "search", inputs, run_directory))
            announce(run_directory)
            path = run_directory.path
            (path / "stages").mkdir(exist_ok=True)
            queue.restore({key: result["score"] for key, result in read_markers(path / "results").items()})
            done = f" ({queue.num_done} done)" if queue.num_done else ""
            print(f"{len(chains)} chains, {len(queue.keys)} stages{done}, {num_slots} at a time", flush=True)
            if not queue.is_over:
                shared = _share(plan, path)
                slots = Slots(lambda number: _start_slot(plan.config, path, number), num_slots)
                with closing(slots), notices_shown(path):
                    _fit(queue, shared, slots)
                if not queue.is_over:  # Tune ends early and silently on Ctrl-C
                    raise KeyboardInterrupt
            link_results(path, chains)
            write_json(path / "outcome.json", _outcome(path, chains, queue))
        write_report(path)
    return run_directory


def _plan(config: Config, run_directory: RunDirectory | None) -> tuple[RunPlan, Inputs]:
    """The plan of a search. Of one that is resumed, files and data must be the same; settings need not: a stage that
    depends on one that changed has another key, and is trained.

    Raises:
        GradusError: as run_search.
    """
    if run_directory is None:
        plan = plan_search(pinned(config))
        return plan, inputs_of(plan)
    run_directory.require_kind("search")
    require_draws(config)
    # The configuration names commits already. That of an earlier version names branches, and so do its keys.
    plan = _with_recorded_keys(plan_search(config), run_directory)
    inputs = inputs_of(plan)
    refuse(run_directory, check_inputs(run_directory, inputs))
    return plan, inputs


def _with_recorded_keys(plan: RunPlan, run_directory: RunDirectory) -> RunPlan:
    """The plan of a resumed search, with the keys in its run directory if those depended on our source code.

    Computed now, such keys differ, and finished stages would be trained again. A stage keeps its recorded key unless a
    setting that its result depends on was overridden.
    """
    path = run_directory.path / "chains.json"
    recorded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"keys_depend_on_code": False}
    if not recorded.get("keys_depend_on_code", True):
        return plan
    before = {entry["name"]: [stage["key"] for stage in entry["stages"]] for entry in recorded["chains"]}
    kept: dict[str, str] = {}
    for chain in plan_search(run_directory.load_config()).chains:
        kept |= dict(zip(chain.keys, before.get(chain.spec.name, []), strict=False))
    chains = tuple(replace(chain, keys=tuple(kept.get(key, key) for key in chain.keys)) for chain in plan.chains)
    return replace(plan, chains=chains, keys_depend_on_code=True)


def _start_slot(config: Config, run_path: Path, number: int) -> SlotActors:
    served = start_actors(config, run_path, number)
    options = RESTARTS | {"max_task_retries": 0, "num_cpus": 0}  # fit_stage repeats what failed
    learners = make_actor(Learners, run_path, f"learners_{number}", **options).remote(run_path, served.learner_room)
    learners.start.remote(config)
    return SlotActors(served, learners)


def _share(plan: RunPlan, run_path: Path) -> SharedByTrials:
    tokens = {
        chain.problems.table_digest: make_tokens(
            chain.problems, plan.config.model, chat=chain.spec.config.data.uses_chat_template
        )
        for chain in plan.chains
    }
    return SharedByTrials(run_path, {chain.spec.name: chain for chain in plan.chains}, tokens)


def slot_actors(plan: RunPlan) -> list[ActorPlan]:
    """Everything that runs for one stage."""
    return [*plan.actors, ActorPlan("trial", 1, TRIAL_CPUS, 0.0, 0.5)]


def count_slots(plan: RunPlan) -> int:
    """Number of stages that run at a time: as many as fit into the cluster, and at most one per chain.

    Raises:
        ClusterError: not even one fits.
    """
    actors = slot_actors(plan)
    wait_for_room(actors, plan.config.limits.placement_s)
    available, needed = ray.available_resources(), needed_resources(actors)
    num_fitting = min(int(available.get(name, 0.0) / amount + 1e-9) for name, amount in needed.items() if amount)
    search = plan.config.search
    limit = (search and search.max_concurrent_stages) or len(plan.chains)
    num_slots = max(1, min(num_fitting, limit, len(plan.chains)))
    while num_slots > 1 and not has_room(actors * num_slots):  # what is free is spread over nodes
        num_slots -= 1
    return num_slots


def _fit(queue: StageQueue, shared: SharedByTrials, slots: Slots) -> None:
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer one prints a banner even when asked for nothing
    # A stage costs what its actors reserve. The trial itself asks for next to nothing, so that it never waits for them.
    trainable = tune.with_resources(tune.with_parameters(run_stage, shared=shared), {"CPU": TRIAL_CPUS})
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=StageSearcher(queue, slots),
            num_samples=-1,
            reuse_actors=True,  # a new process would import torch and Ray Train again for every stage
        ),
        run_config=tune.RunConfig(
            name=f"search_{time.time_ns()}",  # a name used before would silently resume that search
            storage_path=str(shared.run_path / "ray_tune"),
            failure_config=tune.FailureConfig(max_failures=0),  # the searcher counts failures and retries
            verbose=0,
        ),
    ).fit()


def run_stage(settings: dict[str, Any], shared: SharedByTrials) -> None:
    """One trial: train and evaluate one stage, from its last checkpoint or from the result of its parent.

    Args:
        settings: the trial's config, from StageSearcher.
    """
    started = time.time()
    chain, index = shared.chains[settings["stage"]["chain"]], settings["stage"]["index"]
    stage, key = chain.stages[index].spec, chain.keys[index]
    error_file = shared.run_path / "stages" / key / "error.json"
    error_file.unlink(missing_ok=True)
    run = RunDirectory.create_at(error_file.parent, chain.spec.config)
    remove_stale(run.path)
    log_to_file(shared.run_path, "trials")
    if not run.checkpoints.stage_results():
        try:
            _fit_stage(shared, chain, index, settings["actors"], started)
        except Exception as error:
            write_json(error_file, str(error) if isinstance(error, GradusError) else describe_error(error))
            raise
    progress = read_progress(_stage_result(shared.run_path, chain, index))
    score = json.loads((run.evals / f"{stage.name}.json").read_text())["overall"]["accuracy_tagged"]
    result = {
        "name": stage.name,
        "chain": chain.spec.name,
        "score": score,
        "num_steps": progress.stage_step,
        "started": started,
        "ended": time.time(),
        "started_from": progress.started_from,
        "ended_with": progress.ended_with,
        "num_ledger_violations": announce_ledger(run.path),
    }
    write_atlas(run.path, run.path)
    write_marker(shared.run_path / "results", key, result)
    link_results(shared.run_path, shared.chains.values())
    tune.report({"score": score})


def _fit_stage(shared: SharedByTrials, chain: PlannedChain, index: int, actors: SlotActors, since: float) -> None:
    earlier = [_stage_result(shared.run_path, chain, before) for before in range(index)]
    tokens = shared.tokens[chain.problems.table_digest]
    parent = earlier[-1] if earlier and chain.stages[index].spec.carry.weights else None
    run_path = shared.run_path / "stages" / chain.keys[index]
    setup = stage_setup(chain, index, run_path, tokens, earlier, actors.served, parent=parent, since=since)
    fit_stage(setup, partial(_train, actors.learners))


def _train(learners: Any, setup: StageSetup) -> None:
    """Train in the slot's learners, whose errors come as they were raised. The search's end also ends this wait."""
    try:
        ray.get(learners.train.remote(setup))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _stage_result(run_path: Path, chain: PlannedChain, index: int) -> Path:
    """The checkpoint that a finished stage left."""
    (path,) = RunDirectory(run_path / "stages" / chain.keys[index]).checkpoints.stage_results().values()
    return path


def link_results(run_path: Path, chains: Iterable[PlannedChain]) -> None:
    """Link ``checkpoints/<chain>/<stage>`` to every finished stage, and ``checkpoint_last`` to the last of them."""
    finished = read_markers(run_path / "results")
    for chain in chains:
        for index, (stage, key) in enumerate(zip(chain.stages, chain.keys, strict=True)):
            if key in finished:
                for name in (stage.spec.name, "checkpoint_last"):
                    link(run_path / "checkpoints" / chain.spec.name / name, _stage_result(run_path, chain, index))


def _outcome(run_path: Path, chains: Sequence[PlannedChain], queue: StageQueue) -> dict[str, dict[str, Any]]:
    """The outcome of each chain, with the error of those that failed."""
    outcome = queue.outcome()
    for chain in chains:
        ending = outcome[chain.spec.name]
        if ending["status"] == "failed":
            key = chain.keys[ending["num_done"]]
            error = run_path / "stages" / key / "error.json"
            ending["error"] = json.loads(error.read_text()) if error.exists() else f"see {run_path}/stages/{key}/logs"
    return outcome
