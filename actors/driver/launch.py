"""Runs a job of one chain, from its plan to its report.

A stage is one TorchTrainer; engines and graders stay up from the first stage to the last.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from actors.driver.checks import check_plan
from actors.driver.cluster import connected_ray, wait_for_room
from actors.driver.encode import make_tokens
from actors.driver.plan import PlannedChain, RunPlan, count_done, plan_run
from actors.driver.stage import fit_stage, stage_setup
from actors.driver.start import start_actors
from pipeline.config import Config
from pipeline.files import write_json
from pipeline.models.hub import resolve_model
from pipeline.report import write_report
from pipeline.runs.directory import RunDirectory
from pipeline.runs.eta import PlannedStage
from pipeline.runs.logs import log_to_file
from pipeline.runs.notices import notices_shown
from pipeline.runs.progress import follow_progress


def run(config: Config, run_directory: RunDirectory | None = None) -> RunDirectory:
    """Run every stage that is not done yet, then write the report.

    Args:
        run_directory: a run to resume. None creates one, once everything else is known to be available.

    Raises:
        GradusError: something the configuration names is unavailable, or a stage failed too often.
    """
    if run_directory:
        run_directory.require_kind("chain")
    plan = plan_run(config)
    (chain,) = plan.chains
    num_done = count_done(chain.stages, run_directory)
    check_plan(plan, resolve_model(plan.config.model))
    with connected_ray():
        wait_for_room(plan.actors, plan.config.limits.placement_s)
        run_directory = open_run(plan, "chain", run_directory)
        run_directory.checkpoints.refresh_links()
        with notices_shown(run_directory.path), _progress_shown(run_directory.path, chain):
            if num_done < len(chain.stages):
                _train(plan, chain, num_done, run_directory)
    write_report(run_directory.path)
    return run_directory


def open_run(plan: RunPlan, kind: Literal["chain", "search"], run_directory: RunDirectory | None) -> RunDirectory:
    """The run's directory, new or resumed, with the plan written into it and the driver's log opened."""
    run_directory = run_directory or RunDirectory.create(plan.config)
    if kind == "search":  # in a run of one chain the learner holds the lock
        run_directory.lock()
    if plan.config.curriculum:
        chains = {"chains": [chain.record() for chain in plan.chains]}
        record = {"kind": kind, "keys_depend_on_code": plan.keys_depend_on_code, **chains}
        write_json(run_directory.path / "chains.json", record)
    run_directory.save_config(plan.config)  # after the keys: old keys must never stand beside new settings
    log_to_file(run_directory.path, "driver")
    print(f"run directory: {run_directory.path}", flush=True)
    return run_directory


def _train(plan: RunPlan, chain: PlannedChain, num_done: int, run_directory: RunDirectory) -> None:
    """All stages but the first ``num_done``."""
    tokens = make_tokens(chain.problems, plan.config.model, chat=plan.config.data.uses_chat_template)
    actors = start_actors(plan.config, run_directory.path)
    for index in range(num_done, len(chain.stages)):
        earlier = list(run_directory.checkpoints.stage_results().values())
        is_last = index == len(chain.stages) - 1
        fit_stage(stage_setup(chain, index, run_directory.path, tokens, earlier, actors, is_last=is_last))


def planned_stages(chain: PlannedChain) -> list[PlannedStage]:
    """The chain's stages as the progress display expects them."""
    held_out = chain.spec.config.eval
    num_evals = held_out.total_eval_times + (held_out.problems_per_level > 0)
    return [PlannedStage(stage.spec.name, stage.spec.kind, stage.num_steps, num_evals) for stage in chain.stages]


@contextmanager
def _progress_shown(run_path: Path, chain: PlannedChain) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=follow_progress, args=(run_path, planned_stages(chain), stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
