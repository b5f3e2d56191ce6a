"""``--dry-run``: everything that can be checked without starting anything."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from actors.driver.actor_plan import ActorPlan, plan_actors, plan_engines
from actors.driver.package import package_listing
from actors.driver.plan import checked, plan_run, plan_search
from pipeline.cli import JobArguments
from pipeline.config import Config, DataConfig, ModelConfig, load_config
from pipeline.config.evaluation import EvaluationConfig
from pipeline.data import check_data
from pipeline.evaluation.datasets import load_data_set
from pipeline.evaluation.models import find_model, unique_labels
from pipeline.evaluation.registry import DATA_SETS
from pipeline.models.hub import check_model
from pipeline.models.memory import plan_memory


def dry_run_evaluation(config: EvaluationConfig) -> None:
    """Print models, data sets, engines and package.

    Raises:
        GradusError: as ``dry_run``.
    """
    console = Console(soft_wrap=True, highlight=False)
    for label, name in unique_labels(config.model):
        if Path(name).expanduser().is_dir():
            model = find_model(label, name, config.loading)
            console.print(f"model    {label}: {model.kind} in {model.path}", markup=False)
        else:
            description = check_model(ModelConfig(name=name, hub=config.loading.hub, revision=config.loading.revision))
            console.print(f"model    {label}: {description}", markup=False)
    for name in config.dataset:
        entry = DATA_SETS.get(name)
        if entry and entry.hub and not config.data_root:
            console.print(f"data     {name}: {check_data(DataConfig(name=entry.hub.name, subset=entry.hub.subset))}")
        else:
            data = load_data_set(name, config)
            console.print(f"data     {name}: {len(data.problems)} problems of {data.num_rows} rows", markup=False)
    _print_actors(console, plan_engines(config))
    _print_package(console)


def dry_run(arguments: JobArguments) -> None:
    """Print model, data, stages, actors and package.

    Raises:
        GradusError: whatever would stop the job itself, as far as can be known without downloads.
    """
    config = checked(load_config(arguments.config, arguments.overrides))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"config   {arguments.config}: valid")
    console.print(f"stages   {', '.join(f'{stage.name} ({stage.kind})' for stage in config.stages)}")
    console.print(f"model    {check_model(config.model)}")
    console.print(f"dtype    {config.model.dtype}")
    if memory := plan_memory(config):
        console.print(f"memory   about {memory.describe()} for the tensors of each learner")
    console.print(f"data     {check_data(config.data)}")
    if Path(config.data.name).exists() or config.data.name.startswith("embedded:"):  # else it would be downloaded
        with tempfile.TemporaryDirectory() as cache:
            _print_plan(console, config, Path(cache))
    where = "online" if config.tracking.online else "offline"
    console.print(f"tracking {', '.join(['metrics.jsonl', *config.tracking.backends])} ({where})")
    _print_actors(console, plan_actors(config))
    _print_package(console)


def _print_plan(console: Console, config: Config, cache: Path) -> None:
    (chain,) = plan_run(config, cache).chains
    for stage in chain.stages:
        replay = f", {stage.spec.replay.ratio:.0%} replayed" if stage.spec.replay else ""
        console.print(f"         {stage.spec.name}: {len(stage.problems)} problems, {stage.num_steps} steps{replay}")
    if config.search:
        chains = plan_search(config, cache).chains
        num_different = len({key for chain in chains for key in chain.keys})
        console.print(f"search   {len(chains)} chains, {num_different} different stages")
        for chain in chains:
            console.print(f"         {chain.spec.name}: {', '.join(stage.spec.name for stage in chain.stages)}")


def _print_actors(console: Console, actors: Sequence[ActorPlan]) -> None:
    table = Table("actor", "count", "CPUs each", "GPUs each", "memory each, GiB", title="Ray actors")
    for actor in actors:
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
