"""``--dry-run``: everything that can be checked without starting anything."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from actors.driver.actor_plan import ActorPlan, plan_actors, plan_engines
from actors.driver.checks import check_plan, check_without_data
from actors.driver.package import package_listing
from actors.driver.plan import RunPlan, checked, count_done, plan_run, plan_search
from actors.driver.resume import check_inputs, check_resumed, inputs_of, pinned, refuse
from actors.solver import frozen_model
from pipeline.cli import JobArguments, read_arguments
from pipeline.config import Config, DataConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.generation import GenerationConfig
from pipeline.data import check_data
from pipeline.data.sources import local_path
from pipeline.evaluation.datasets import Loaded, load_data_set
from pipeline.evaluation.models import EvalModel, find_model, loading_config, unique_labels
from pipeline.evaluation.record import check_settings
from pipeline.evaluation.registry import DATA_SETS
from pipeline.models.hub import check_model, local_files
from pipeline.models.memory_estimate import plan_memory
from pipeline.runs.directory import Kind, RunDirectory


def dry_run_evaluation(config: EvaluationConfig, directory: Path | None = None) -> None:
    """Print models, data sets, engines and package.

    Args:
        directory: an evaluation to resume.

    Raises:
        GradusError: as ``dry_run``.
    """
    from actors.driver.evaluate import checked_prompters

    console = Console(soft_wrap=True, highlight=False)
    models = list(_models_here(console, config))
    loaded = list(_data_here(console, config))
    checked_prompters(config, models, loaded)
    if directory:
        check_settings(directory, config)
    _print_actors(console, plan_engines(config.rollout))
    _print_package(console)


def dry_run_generation(config: GenerationConfig, directory: Path | None = None) -> None:
    """Print model, tasks, test sets, engines and package.

    Args:
        directory: a generation to resume.

    Raises:
        GradusError: as ``dry_run``.
    """
    from actors.driver.generate import plan_generation

    console = Console(soft_wrap=True, highlight=False)
    with ExitStack() as held:
        plan = plan_generation(config, held, local_files)
        if directory:
            plan.record.check(directory)
    console.print(f"model    {plan.model.label}: {plan.model.kind} in {plan.model.path}", markup=False)
    if plan.solver:
        console.print(f"solver   {check_model(frozen_model(plan.run, plan.solver.name))}", markup=False)
    for cell, quota in plan.quotas.items():
        console.print(f"tasks    {' '.join(cell)}: {quota} problems", markup=False)
    if plan.tasks.num_too_long:
        console.print(f"too long {plan.tasks.num_too_long} tasks: their prompts do not fit", markup=False)
    for name, size in plan.record.compared.items():
        console.print(f"compared {name}: {size} problems", markup=False)
    for name, reason in plan.test_sets.missing.items():
        console.print(f"missing  {name}: {reason}", markup=False)
    _print_actors(console, plan.actors)
    _print_package(console)


def _models_here(console: Console, config: EvaluationConfig) -> Iterator[EvalModel]:
    """The models on this machine; all are printed."""
    for label, name in unique_labels(config.model):
        if Path(name).expanduser().is_dir():
            model = find_model(label, name, config.loading)
            console.print(f"model    {label}: {model.kind} in {model.path}", markup=False)
            yield model
        else:
            settings = loading_config(name, config.loading)
            console.print(f"model    {label}: {check_model(settings)}", markup=False)
            if path := local_files(settings):
                yield EvalModel(label, name, "model", path, None, None)


def _data_here(console: Console, config: EvaluationConfig) -> Iterator[Loaded]:
    """The data sets that need no download; all are printed."""
    for name in config.dataset:
        entry = DATA_SETS.get(name)
        if entry and entry.hub and not config.data_root:
            console.print(f"data     {name}: {check_data(DataConfig(name=entry.hub.name, subset=entry.hub.subset))}")
        else:
            data = load_data_set(name, config)
            console.print(f"data     {name}: {len(data.problems)} problems of {data.num_rows} rows", markup=False)
            yield data


def dry_run(arguments: JobArguments, kind: Kind = "chain") -> None:
    """Print model, data, stages, actors and package.

    Raises:
        GradusError: whatever would stop the job itself, as far as can be known without downloads.
    """
    config, run_directory = read_arguments(arguments)
    if run_directory:
        run_directory.require_kind(kind)
    with tempfile.TemporaryDirectory() as cache:
        plan = _plan(config, kind, Path(cache))
        config = plan.config if plan else checked(config)
        model, data = check_model(config.model), check_data(config.data)
        _check(plan, config, kind, run_directory)
        console = Console(soft_wrap=True, highlight=False)
        console.print(f"config   {run_directory.path if run_directory else arguments.config}: valid")
        console.print(f"stages   {', '.join(f'{stage.name} ({stage.kind})' for stage in config.stages)}")
        console.print(f"model    {model}")
        console.print(f"dtype    {config.model.dtype}")
        _print_memory(console, config)
        console.print(f"data     {data}")
        if plan:
            _print_plan(console, plan)
    where = "online" if config.tracking.online else "offline"
    console.print(f"tracking {', '.join(['metrics.jsonl', *config.tracking.backends])} ({where})")
    _print_actors(console, plan_actors(config))
    _print_package(console)


def _check(plan: RunPlan | None, config: Config, kind: Kind, run_directory: RunDirectory | None) -> None:
    model = local_files(config.model)
    if plan and run_directory and kind == "chain":
        stages = plan.chains[0].stages
        left = stages[count_done(stages, run_directory) :]
        if model:
            now = pinned(plan.config, run_directory)
            check_resumed(run_directory, now, inputs_of(plan), [stage.spec for stage in left])
    elif plan and run_directory and model:
        refuse(run_directory, check_inputs(run_directory, inputs_of(plan)))
    if plan:
        check_plan(plan, model)
    else:
        check_without_data(config, model)


def _plan(config: Config, kind: Kind, cache: Path) -> RunPlan | None:
    """None if the data would have to be downloaded."""
    if not config.data.name.startswith("embedded:") and not local_path(config.data.name):
        return None
    return plan_search(config, cache) if kind == "search" else plan_run(config, cache)


def _print_plan(console: Console, plan: RunPlan) -> None:
    for stage in plan.chains[0].stages:
        replay = f", {stage.spec.replay.ratio:.0%} replayed" if stage.spec.replay else ""
        console.print(f"         {stage.spec.name}: {len(stage.problems)} problems, {stage.num_steps} steps{replay}")
    if plan.chains[0].keys:
        num_different = len({key for chain in plan.chains for key in chain.keys})
        console.print(f"search   {len(plan.chains)} chains, {num_different} different stages")
        if (search := plan.config.search) and search.drawn_by == "optuna" and len(search.draws) < search.num_draws:
            more = search.num_draws - len(search.draws)
            console.print(f"         Optuna makes {more} more draws, once the results of these are known")
        for chain in plan.chains:
            console.print(f"         {chain.spec.name}: {', '.join(stage.spec.name for stage in chain.stages)}")


def _print_memory(console: Console, config: Config) -> None:
    if memory := plan_memory(config):
        reserved = config.learner.memory_gib
        more = f", more than learner.memory_gib={reserved:g}: raise it" if memory.total > reserved * 2**30 else ""
        console.print(f"memory   about {memory.describe()} for the tensors of each learner{more}")


def _print_actors(console: Console, actors: Sequence[ActorPlan]) -> None:
    table = Table("actor", "count", "CPUs each", "GPUs each", "memory each, GiB", title="Ray actors")
    for actor in actors:
        if actor.name == "frozen" and not actor.count:
            continue
        table.add_row(
            actor.name, str(actor.count), f"{actor.num_cpus:g}", f"{actor.num_gpus:g}", f"{actor.memory_gib:g}"
        )
    console.print(table)


def _print_package(console: Console) -> None:
    listing = package_listing(Path.cwd())
    console.print(listing.describe())
    for path, size in listing.largest:
        console.print(f"         {size / 2**10:9.1f} KiB  {path}")
    console.print("nothing was started")
