"""A search over curricula: every stage of every chain is one trial of one Tuner.

The driver plans all chains, starts one set of engines per stage that may run at a time, and hands stages to Tune
through StageSearcher. A trial trains one stage in a directory of its own, ``stages/<key>``, and ends by writing
``results/<key>.json``: what has a result is never run again.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from actors.driver.encode import make_tokens
from actors.driver.launch import connected_ray, fit_stage, start_actors, wait_for_resources
from actors.driver.plan import (
    ActorPlan,
    PlannedChain,
    chain_record,
    needed_resources,
    plan_actors,
    plan_chains,
    replay_buffer,
    settle_dtype,
)
from actors.driver.tune_searcher import StageSearcher
from actors.learner.session import StageSetup
from pipeline.config import Config
from pipeline.curriculum.stage_queue import StageQueue, make_queue, read_markers, write_marker
from pipeline.data.table import data_cache
from pipeline.data.tokens import TokenTable
from pipeline.errors import ConfigError, GradusError
from pipeline.files import link, write_json
from pipeline.models.hub import resolve_model
from pipeline.report import write_report
from pipeline.runs.checkpoints import read_progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.logs import log_to_file
from pipeline.runs.trackers import check_trackers
from pipeline.training.rewards import resolve

TRIAL_CPUS = 0.01
"""Tune insists on some."""


@dataclass(frozen=True)
class Trial:
    """Everything that trials share."""

    run_path: Path
    chains: dict[str, PlannedChain]
    tokens: dict[str, TokenTable]
    """Of the chains' training problems, by the digest of their table."""
    slots: tuple[dict[str, Any], ...]
    """Engines, graders and weight store of each stage that may run at a time."""


def run_search(config: Config, run_directory: RunDirectory | None = None) -> RunDirectory:
    """Run all stages of all chains that have no result yet, then write the report.

    Args:
        run_directory: of a search to go on with.

    Raises:
        GradusError: something the configuration names cannot be had.
    """
    config = settle_dtype(config)
    if config.search is None or config.curriculum is None:
        raise ConfigError("a search must have the sections search and curriculum: see configs/search_replay_demo.yaml.")
    if run_directory:
        run_directory.require_kind("search")
    for term in config.reward.functions:
        resolve(term.name)
    check_trackers(config.tracking)
    chains = plan_chains(config, data_cache(config))
    search = make_queue([c.spec for c in chains], [c.keys for c in chains], config.search)
    resolve_model(config.model)
    with connected_ray():
        num_slots = count_slots(config, len(chains))
        run_directory = run_directory or RunDirectory.create(config)
        run_directory.lock()
        run_directory.save_config(config)
        path = run_directory.path
        (path / "stages").mkdir(exist_ok=True)
        log_to_file(path, "driver")
        records = [chain_record(chain.spec, chain.stages, chain.keys) for chain in chains]
        write_json(path / "chains.json", {"kind": "search", "chains": records})
        search.restore({key: result["score"] for key, result in read_markers(path / "results").items()})
        print(f"run directory: {path}", flush=True)
        print(f"{len(chains)} chains, {len(search.keys)} stages, {num_slots} at a time", flush=True)
        if not search.is_over:
            tokens = {
                chain.problems.table_digest: make_tokens(
                    chain.problems, config.model, chat=chain.spec.config.data.prompt_template is None
                )
                for chain in chains
            }
            slots = tuple(start_actors(config, path, slot) for slot in range(num_slots))
            _fit(search, Trial(path, {chain.spec.name: chain for chain in chains}, tokens, slots))
            if not search.is_over:  # Tune ends early, without a word, on Ctrl-C
                raise KeyboardInterrupt
        link_results(path, chains)
        write_json(path / "outcome.json", _outcome(path, chains, search))
    write_report(run_directory.path)
    return run_directory


def slot_plan(config: Config) -> list[ActorPlan]:
    """All that runs for one stage."""
    return [*plan_actors(config), ActorPlan("trial", 1, TRIAL_CPUS, 0.0, 0.5)]


def count_slots(config: Config, num_chains: int) -> int:
    """How many stages run at a time: as many as fit into the cluster, and no more than chains.

    Raises:
        ClusterError: not even one fits.
    """
    plan = slot_plan(config)
    wait_for_resources(plan)
    there, needed = ray.available_resources(), needed_resources(plan)
    num_fitting = min(int(there.get(name, 0.0) / amount + 1e-9) for name, amount in needed.items() if amount)
    asked = (config.search and config.search.max_concurrent_stages) or num_chains
    return max(1, min(num_fitting, asked, num_chains))


def _fit(search: StageQueue, trial: Trial) -> None:
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer one prints a banner even when asked for nothing
    # Its actors are what a stage costs. The trial itself asks for next to nothing, so that it never waits for them.
    trainable = tune.with_resources(tune.with_parameters(run_stage, trial=trial), {"CPU": TRIAL_CPUS})
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=StageSearcher(search, len(trial.slots)),
            num_samples=-1,
            reuse_actors=True,  # a new process would import torch and Ray Train again for every stage
        ),
        run_config=tune.RunConfig(
            name=f"search_{time.time_ns()}",  # a name used before would silently resume that search
            storage_path=str(trial.run_path / "ray_tune"),
            failure_config=tune.FailureConfig(max_failures=0),  # the searcher counts failures, and tries again
            verbose=0,
        ),
    ).fit()


def run_stage(settings: dict[str, Any], trial: Trial) -> None:
    """One trial: train and evaluate one stage, from its last checkpoint or from the result of its parent."""
    started = time.time()
    chain, index = trial.chains[settings["stage"]["chain"]], settings["stage"]["index"]
    stage, key = chain.stages[index].spec, chain.keys[index]
    error_file = trial.run_path / "stages" / key / "error.json"
    error_file.unlink(missing_ok=True)
    run = RunDirectory.create_at(error_file.parent, chain.spec.config)
    log_to_file(trial.run_path, "trials")
    if not run.checkpoints.stage_results():
        try:
            fit_stage(_setup(trial, chain, index, settings["stage"]["slot"]))
        except Exception as error:
            last_line = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"
            write_json(error_file, str(error) if isinstance(error, GradusError) else last_line)
            raise
    progress = read_progress(_stage_result(trial.run_path, chain, index))
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
    }
    write_marker(trial.run_path / "results", key, result)
    link_results(trial.run_path, trial.chains.values())
    tune.report({"score": score})


def _setup(trial: Trial, chain: PlannedChain, index: int, slot: int) -> StageSetup:
    stage = chain.stages[index]
    before = [_stage_result(trial.run_path, chain, earlier) for earlier in range(index)]
    buffer = replay_buffer(chain.spec.config, stage.spec, before)
    return StageSetup(
        config=chain.spec.config,
        stage=stage.spec,
        run_path=trial.run_path / "stages" / chain.keys[index],
        problems=stage.problems,
        tokens=trial.tokens[chain.problems.table_digest],
        eval_problems=chain.held_out,
        buffer=buffer,
        replayed=buffer.pick(chain.problems) if buffer else chain.problems[:0],
        parent=before[-1] if before and stage.spec.carry.weights else None,
        is_last=False,
        **trial.slots[slot],
    )


def _stage_result(run_path: Path, chain: PlannedChain, index: int) -> Path:
    """The checkpoint that a finished stage left."""
    (path,) = RunDirectory(run_path / "stages" / chain.keys[index]).checkpoints.stage_results().values()
    return path


def link_results(run_path: Path, chains: Iterable[PlannedChain]) -> None:
    """``checkpoints/<chain>/<stage>`` for every finished stage, and ``checkpoint_last`` for the last of them."""
    finished = read_markers(run_path / "results")
    for chain in chains:
        for index, (stage, key) in enumerate(zip(chain.stages, chain.keys, strict=True)):
            if key in finished:
                for name in (stage.spec.name, "checkpoint_last"):
                    link(run_path / "checkpoints" / chain.spec.name / name, _stage_result(run_path, chain, index))


def _outcome(run_path: Path, chains: Sequence[PlannedChain], search: StageQueue) -> dict[str, dict[str, Any]]:
    """What became of each chain, and what went wrong in those that failed."""
    outcome = search.outcome()
    for chain in chains:
        found = outcome[chain.spec.name]
        if found["status"] == "failed":
            key = chain.keys[found["num_done"]]
            error = run_path / "stages" / key / "error.json"
            found["error"] = json.loads(error.read_text()) if error.exists() else f"see {run_path}/stages/{key}/logs"
    return outcome
