"""Runs a job of one chain, from its plan to its report.

Engines, graders and learners start side by side and stay up from the first stage to the last.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

import psutil

from actors.driver.checks import check_plan
from actors.driver.cluster import connected_ray, wait_for_room
from actors.driver.encode import make_tokens
from actors.driver.learners import Learners
from actors.driver.plan import PlannedChain, RunPlan, count_done, plan_run
from actors.driver.resume import check_resumed, inputs_of, pinned
from actors.driver.stage import fit_stage, stage_setup
from actors.driver.start import start_actors, stop_actors
from pipeline.config import Config
from pipeline.errors import ClusterError
from pipeline.files import remove_stale, write_json
from pipeline.models.hub import resolve_model
from pipeline.runs.background import in_background
from pipeline.runs.directory import RunDirectory, make_directory
from pipeline.runs.eta import PlannedStage
from pipeline.runs.inputs import Inputs
from pipeline.runs.ledger_check import announce_ledger
from pipeline.runs.logs import log_to_file
from pipeline.runs.notices import notices_shown
from pipeline.runs.progress import follow_progress
from pipeline.runs.replay import announce_replay, check_replay
from pipeline.training.schedules import eval_steps


def run(config: Config, run_directory: RunDirectory | None = None) -> RunDirectory:
    """Run every stage that is not done yet, then write the report.

    Args:
        run_directory: a run to resume. None creates one, once everything else is known to be available.

    Raises:
        GradusError: something the configuration names is unavailable, a resumed run differs from what it was, or a
            stage failed too often.
    """
    with ExitStack() as held, ThreadPoolExecutor(1) as beside:
        planned = beside.submit(_plan, config, run_directory)
        with connected_ray():  # Ray sets signal handlers, for which it must start in the main thread
            plan, chain, inputs = planned.result()
            checked = beside.submit(check_plan, plan, resolve_model(plan.config.model))
            if run_directory or checked.done():  # an old configuration is overwritten only if all is well
                checked.result()
            try:
                wait_for_room(plan.actors, plan.config.limits.placement_s)
            except ClusterError:
                checked.result()  # a plan that is refused needs no room
                raise
            run_directory = held.enter_context(open_run(plan, "chain", inputs, run_directory, checked))
            run_directory.checkpoints.refresh_links()
            num_done = count_done(chain.stages, run_directory)
            progress = in_background(follow_progress, run_directory.path, planned_stages(chain))
            with notices_shown(run_directory.path), progress:
                if num_done < len(chain.stages):
                    _train(plan, chain, num_done, run_directory, checked)
                else:
                    announce(run_directory)
        announce_ledger(run_directory.path)
        announce_replay(plan.config, run_directory.path)
        write_report(run_directory.path)
    return run_directory


def write_report(run_path: Path) -> None:
    """Write the report. The code that draws its plots is imported only now, not before the first step."""
    from pipeline import report

    report.write_report(run_path)


def _plan(config: Config, run_directory: RunDirectory | None) -> tuple[RunPlan, PlannedChain, Inputs]:
    if run_directory:
        run_directory.require_kind("chain")
    plan = plan_run(pinned(config, run_directory))
    (chain,) = plan.chains
    inputs = inputs_of(plan)
    if run_directory:
        left = chain.stages[count_done(chain.stages, run_directory) :]
        check_resumed(run_directory, plan.config, inputs, [stage.spec for stage in left])
    check_replay(plan.config, inputs)
    return plan, chain, inputs


@contextmanager
def open_run(
    plan: RunPlan,
    kind: Literal["chain", "search"],
    inputs: Inputs,
    run_directory: RunDirectory | None,
    checked: "Future[None] | None" = None,
) -> Iterator[RunDirectory]:
    """The run's directory, new or resumed, held while the block lasts, with the plan written into it and the driver's
    log opened.

    Args:
        checked: checks that are still going on. If they fail, a new directory is removed after the block.
    """
    is_new = run_directory is None
    run_directory = run_directory or RunDirectory(make_directory(plan.config.output.root))
    try:
        with run_directory.locked():
            _write_plan(plan, kind, inputs, run_directory)
            log_to_file(run_directory.path, "driver")
            yield run_directory
    finally:
        if is_new and checked and checked.exception():
            shutil.rmtree(run_directory.path, ignore_errors=True)  # actors may be writing their logs still


def announce(run_directory: RunDirectory) -> None:
    print(f"run directory: {run_directory.path}", flush=True)


def _write_plan(plan: RunPlan, kind: str, inputs: Inputs, run_directory: RunDirectory) -> None:
    before = Inputs.read(run_directory.path)
    (before.joined(inputs) if before else inputs).write(run_directory.path)
    if plan.config.curriculum or kind == "search":
        chains = {"chains": [chain.record() for chain in plan.chains]}
        record = {"kind": kind, "keys_depend_on_code": plan.keys_depend_on_code, **chains}
        write_json(run_directory.path / "chains.json", record)
    # The configuration comes after the keys: old keys must never stand beside new settings.
    RunDirectory.create_at(run_directory.path, plan.config)
    remove_stale(run_directory.path)


def _train(
    plan: RunPlan, chain: PlannedChain, num_done: int, run_directory: RunDirectory, checked: "Future[None]"
) -> None:
    """All stages but the first ``num_done``. Actors start while the plan is being checked."""
    actors = start_actors(plan.config, run_directory.path)
    with closing(Learners(run_directory.path, actors.learner_room)) as learners:
        learners.start(plan.config)
        if checked.exception():
            stop_actors(actors)
        checked.result()
        announce(run_directory)
        tokens = make_tokens(chain.problems, plan.config.model, chat=plan.config.data.uses_chat_template)
        for index in range(num_done, len(chain.stages)):
            earlier = list(run_directory.checkpoints.stage_results().values())
            is_last = index == len(chain.stages) - 1
            setup = stage_setup(
                chain, index, run_directory.path, tokens, earlier, actors, is_last=is_last, since=command_time()
            )
            fit_stage(setup, learners.train)


def command_time() -> float:
    """Unix time at which this process started."""
    return float(psutil.Process().create_time())


def planned_stages(chain: PlannedChain) -> list[PlannedStage]:
    """The chain's stages as the progress display expects them."""
    held_out = chain.spec.config.eval
    at_end = held_out.problems_per_level > 0
    return [
        PlannedStage(
            stage.spec.name,
            stage.spec.kind,
            stage.num_steps,
            len(eval_steps(held_out.total_eval_times, stage.num_steps, held_out.every_steps)) + at_end,
        )
        for stage in chain.stages
    ]
