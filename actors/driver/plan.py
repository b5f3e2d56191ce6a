"""The plan of a run: its stages with their problems, held-out problems, and actors. Made once, then carried out.

A run of one chain and a search share it: a search has many chains, whose stages have keys. Needs no Ray.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from actors.driver.actor_plan import ActorPlan, check_devices, engine_limits, plan_actors
from actors.driver.drawing import with_draws
from pipeline.config import Config, GRPOConfig, ProblemFilter, SFTConfig
from pipeline.curriculum.grid import ChainSpec, chain_specs
from pipeline.curriculum.keys import problems_digest, stage_keys
from pipeline.curriculum.samplers.base import StageLength, StageProblems
from pipeline.curriculum.samplers.stage import StageSampler
from pipeline.curriculum.stages import StageSpec, stage_specs, total_steps
from pipeline.data import load_problems
from pipeline.data.selection import choose_problems, natural_order, select_problems
from pipeline.data.sources import pinned_data
from pipeline.data.table import ProblemTable, data_cache, heads, load_table, num_shared
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.models.device import choose_dtype
from pipeline.models.hub import own_revision
from pipeline.rewards.registry import resolve
from pipeline.runs.directory import RunDirectory
from pipeline.runs.trackers import check_trackers
from pipeline.types import Problem

logger = logging.getLogger(__name__)

Problems = TypeVar("Problems", bound=Sequence[Problem])


@dataclass(frozen=True)
class StagePlan(Generic[Problems]):
    """One stage with its own training problems."""

    spec: StageSpec
    problems: Problems

    @property
    def num_steps(self) -> int:
        """Steps before problems that are too long are left out."""
        return total_steps(self.spec, Counter(head.level for head in heads(self.problems)))

    @property
    def levels(self) -> list[str]:
        return sorted(_levels(self.problems), key=natural_order)


@dataclass(frozen=True)
class PlannedChain:
    """A chain: its stages, and the data they share."""

    spec: ChainSpec
    stages: tuple[StagePlan[ProblemTable], ...]
    problems: ProblemTable
    """All of the training data: the replay buffer names problems of it."""
    held_out: tuple[Problem, ...]
    keys: tuple[str, ...] = ()
    """One per stage in a search, where equal stages are trained once. Empty for a run of one chain."""

    def record(self) -> dict[str, Any]:
        """The chain's entry in ``chains.json``: what the report needs to find its evaluations."""
        keys = self.keys or (None,) * len(self.stages)
        return {
            "name": self.spec.name,
            "setting": self.spec.setting,
            "seed": self.spec.seed,
            "is_baseline": self.spec.is_baseline,
            "values": self.spec.values,
            "stages": [
                {
                    "name": stage.spec.name,
                    "kind": stage.spec.kind,
                    "levels": stage.levels,
                    "key": key,
                    "directory": f"stages/{key}" if key else ".",
                }
                for stage, key in zip(self.stages, keys, strict=True)
            ],
        }


@dataclass(frozen=True)
class RunPlan:
    """All that a training job will do."""

    config: Config
    """With ``model.dtype`` decided."""
    chains: tuple[PlannedChain, ...]
    """One, or those of a search."""
    keys_depend_on_code: bool = False
    """True for a search that was started when stage keys depended on our source code. It keeps them."""

    @property
    def actors(self) -> tuple[ActorPlan, ...]:
        """The actors that serve one stage at a time."""
        return plan_actors(self.config)


def plan_run(config: Config, cache: Path | None = None) -> RunPlan:
    """Plan a run of one chain.

    Args:
        cache: where tables of problems are kept. None: beside the runs.

    Raises:
        GradusError: a reward, a tracker or data that the configuration names is unavailable, or a level that it names
            is not in the data.
    """
    config = checked(config)
    spec = ChainSpec("chain", "default", config.seed, False, {}, config)
    chain = _plan_chain(spec, *_load(config, cache or data_cache(config)))
    return RunPlan(config, (chain,))


def plan_search(config: Config, cache: Path | None = None) -> RunPlan:
    """Plan all chains of a search, with the keys of their stages.

    Raises:
        GradusError: as ``plan_run``, or the configuration has no search, or its chains need different engines.
    """
    if config.search is None:
        raise ConfigError("a search must have a section search: see configs/search_replay_demo.yaml.")
    config = with_draws(checked(config))
    chains = []
    loaded: dict[str, tuple[ProblemTable, list[Problem]]] = {}  # once, not for every chain
    for spec in _pinned_chains(config):
        _check_chain(spec, config)
        data = spec.config.data.model_dump_json()
        if data not in loaded:
            loaded[data] = _load(spec.config, cache or data_cache(config))
        chains.append(_plan_chain(spec, *loaded[data], with_keys=True))
    return RunPlan(config, tuple(chains))


def _load(config: Config, cache: Path) -> tuple[ProblemTable, list[Problem]]:
    """Training problems, and held-out problems unless evaluation is off. Warns if they overlap."""
    problems, data = load_table(config.data, "train", cache), config.data
    held_out = load_problems(data, "eval") if config.eval.problems_per_level else []
    if not data.write and (shared := num_shared(problems, held_out)):
        logger.warning(
            "%s: %d of %d held-out problems (%s) are also training problems (%s): accuracy on them says little about "
            "new ones",
            *(data.name, shared, len(held_out), data.eval_split, data.train_split),
        )
    return problems, held_out


def _pinned_chains(config: Config) -> Iterator[ChainSpec]:
    """The chains of a search. One with another data set than the search's has the commit of its own."""
    for spec in chain_specs(config):
        data = own_revision(spec.config.data, config.data)
        if data is not spec.config.data:
            spec = replace(spec, config=spec.config.model_copy(update={"data": pinned_data(data)}))
        yield spec


def checked(config: Config) -> Config:
    """The configuration with its dtype decided.

    Raises:
        GradusError: a reward or a tracker that it names is unavailable, or its devices do not fit together.
    """
    check_devices(config)
    for term in config.reward.functions:
        resolve(term.name)
    check_trackers(config.tracking)
    return decide_dtype(config)


def decide_dtype(config: Config) -> Config:
    """The configuration with ``model.dtype: auto`` replaced by this machine's choice, so that all workers and resumed
    runs agree."""
    on_gpu = config.learner.num_gpus > 0 or config.model.device in ("cuda", "mps")
    dtype = choose_dtype(config.model.dtype, on_gpu)
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})


def _check_chain(spec: ChainSpec, config: Config) -> None:
    if _engine_settings(spec.config) != _engine_settings(config):
        raise ConfigError(
            "search must not change which actors there are or what they are started with (model, rollout, reward, "
            "questions, resources of the learner, kinds of stages, longest completion, largest group), "
            f"got {spec.name}: engines stay up from the first stage to the last. Run two searches."
        )
    if not spec.config.eval.problems_per_level:
        raise ConfigError("eval.problems_per_level must be above 0 in a search, got 0: accuracy is what it compares.")


def _engine_settings(config: Config) -> tuple[Any, ...]:
    model = config.model.model_dump(exclude={"lora"})
    return model, config.rollout, config.reward, config.questions, engine_limits(config), plan_actors(config)


def _plan_chain(
    spec: ChainSpec, problems: ProblemTable, all_held_out: Sequence[Problem], *, with_keys: bool = False
) -> PlannedChain:
    config = spec.config
    stages = plan_stages(config, problems)
    held_out = held_out_problems(config, all_held_out)
    check_held_out(config, stages, held_out)
    keys: tuple[str, ...] = ()
    if with_keys:
        digests = [problems_digest(stage.problems) for stage in stages]
        keys = tuple(stage_keys(config, [stage.spec for stage in stages], digests, problems_digest(held_out)))
    return PlannedChain(spec, tuple(stages), problems, tuple(held_out), keys)


def plan_stages(config: Config, problems: Problems) -> list[StagePlan[Problems]]:
    """All stages in order.

    Args:
        problems: all of the training data.

    Raises:
        ConfigError: a level that the data lacks, or a sampler that needs others.
        DataError: a stage without problems.
    """
    specs = stage_specs(config, sorted(_levels(problems)))
    stages = [StagePlan(spec, _stage_problems(config, spec, problems)) for spec in specs]
    for stage in stages:
        if isinstance(stage.spec.settings, GRPOConfig) and stage.spec.settings.sampler:
            levels = config.curriculum.levels if config.curriculum else None
            StageSampler(
                stage.spec.settings.sampler, StageProblems(list(heads(stage.problems)), levels=levels), StageLength(1)
            )
    return stages


def _stage_problems(config: Config, spec: StageSpec, problems: Problems) -> Problems:
    chosen = choose_problems(problems, spec.problems, config.seed, with_solution=isinstance(spec.settings, SFTConfig))
    if not chosen:
        solved = " with worked solutions" if isinstance(spec.settings, SFTConfig) else ""
        raise DataError(
            f"stage {spec.name} must have problems{solved}, got none of {config.data.name} with "
            f"{spec.problems.model_dump(exclude_none=True) or 'no filter'}."
        )
    return chosen


def _levels(problems: Sequence[Problem]) -> set[str]:
    return {head.level for head in heads(problems) if head.level is not None}


def held_out_problems(config: Config, problems: Sequence[Problem]) -> list[Problem]:
    """Problems to evaluate on, of the curriculum's levels if it names some. None when evaluation is off."""
    levels = config.curriculum.levels if config.curriculum else None
    return select_problems(problems, ProblemFilter(levels=levels)) if config.eval.problems_per_level else []


def check_held_out(config: Config, stages: Sequence[StagePlan[Any]], problems: Sequence[Problem]) -> None:
    """Raises DataError when a curriculum trains on a level that has no held-out problems."""
    if config.curriculum and config.eval.problems_per_level:
        held_out = {problem.level for problem in problems}
        if missing := [level for stage in stages for level in stage.levels if level not in held_out]:
            raise DataError(
                f"held-out data must have problems of every level that is trained on, got none of {missing}."
            )


def count_done(stages: Sequence[StagePlan[Any]], run_directory: RunDirectory | None) -> int:
    """Number of stages that are done. Raises CheckpointError if the run stopped in a stage that is not among them."""
    progress = run_directory.checkpoints.latest_progress() if run_directory else None
    if run_directory is None or progress is None:
        return 0
    names = [stage.spec.name for stage in stages]
    if progress.stage not in names:
        raise CheckpointError(f"stages must hold {progress.stage}, where the run stopped, got {names}.")
    num_done = names.index(progress.stage) + progress.stage_done
    done = list(run_directory.checkpoints.stage_results())
    if any(stage.spec.replay for stage in stages) and done != names[:num_done]:
        raise CheckpointError(f"the stages that are done must be the first of {names}, got {done}.")
    return num_done
