"""What a configuration asks for: stages with their problems, actors, how large its engines are. Needs no Ray."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.config import Config, GRPOConfig, ProblemFilter
from pipeline.config.evaluation import EvaluationConfig
from pipeline.curriculum.replay import ReplayBuffer, read_trained
from pipeline.curriculum.stages import (
    ChainSpec,
    StageSpec,
    chain_specs,
    problems_digest,
    stage_keys,
    stage_specs,
    total_steps,
)
from pipeline.data import load_problems
from pipeline.data.selection import choose_problems, natural_order, select_problems
from pipeline.data.table import ProblemTable, heads, load_table
from pipeline.errors import ConfigError, DataError
from pipeline.models.policy import choose_dtype
from pipeline.types import Problem

P = TypeVar("P", bound=Sequence[Problem])
EVAL_CHUNK = 32
"""Prompts of an evaluation that share an engine's batch. Fixed, so that results do not depend on engines."""


@dataclass(frozen=True)
class ActorPlan:
    name: str
    count: int
    num_cpus: float
    num_gpus: float
    memory_gib: float


def settle_dtype(config: Config) -> Config:
    """With ``model.dtype: auto`` as this machine has it: all workers and resumed runs agree."""
    on_gpu = config.learner.num_gpus > 0 or config.model.device in ("cuda", "mps")
    dtype = choose_dtype(config.model.dtype, on_gpu)
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})


def plan_actors(config: Config) -> list[ActorPlan]:
    """All actors that live at the same time, per kind. Supervised fine-tuning alone needs nobody who grades."""
    rollout, reward, learner = config.rollout, config.reward, config.learner
    samples = any(stage.kind == "grpo" for stage in config.stages)
    num_rollout = rollout.num_workers if samples or config.eval.problems_per_level else 0
    return [
        ActorPlan("learner", learner.num_workers, learner.num_cpus, learner.num_gpus, learner.memory_gib),
        ActorPlan("rollout", num_rollout, rollout.num_cpus, rollout.num_gpus, rollout.memory_gib),
        ActorPlan("reward", reward.num_workers if samples else 0, reward.num_cpus, 0.0, reward.memory_gib),
        ActorPlan("weight store", 1, 0.0, 0.0, 0.0),
    ]


def plan_engines(config: EvaluationConfig) -> list[ActorPlan]:
    """Of an evaluation."""
    rollout = config.rollout
    return [ActorPlan("rollout", rollout.num_workers, rollout.num_cpus, rollout.num_gpus, rollout.memory_gib)]


def needed_resources(actors: Sequence[ActorPlan]) -> dict[str, float]:
    """What all of them reserve, by Ray's names: memory in bytes."""
    return {
        "CPU": sum(actor.count * actor.num_cpus for actor in actors),
        "GPU": sum(actor.count * actor.num_gpus for actor in actors),
        "memory": sum(actor.count * actor.memory_gib for actor in actors) * 2**30,
    }


def engine_limits(config: Config) -> tuple[int, int]:
    """(tokens of the longest prompt and completion, sequences decoded together) over all stages."""
    rollout = config.rollout
    longest = max(rollout.max_completion_length, config.eval.max_completion_length)
    settings = [config.stage_settings(stage) for stage in config.stages]
    chunk = max(
        (s.num_generations * rollout.prompts_per_chunk for s in settings if isinstance(s, GRPOConfig)), default=1
    )
    return rollout.max_prompt_length + longest, max(chunk, EVAL_CHUNK)


@dataclass(frozen=True)
class StagePlan(Generic[P]):
    """One stage, with its own training problems."""

    spec: StageSpec
    problems: P

    @property
    def num_steps(self) -> int:
        """Before problems that are too long are left out."""
        return total_steps(self.spec, Counter(head.level for head in heads(self.problems)))

    @property
    def levels(self) -> list[str]:
        return sorted(_levels(self.problems), key=natural_order)


def plan_stages(config: Config, problems: P) -> list[StagePlan[P]]:
    """All stages in order.

    Args:
        problems: all of the training data.

    Raises:
        ConfigError: a level that the data lacks.
        DataError: a stage without problems.
    """
    specs = stage_specs(config, sorted(_levels(problems)))
    return [StagePlan(spec, _stage_problems(config, spec, problems)) for spec in specs]


def _levels(problems: Sequence[Problem]) -> set[str]:
    return {head.level for head in heads(problems) if head.level is not None}


def held_out_problems(config: Config, problems: Sequence[Problem]) -> list[Problem]:
    """Problems to evaluate on: none when evaluation is off, and of the curriculum's levels if it names some."""
    levels = config.curriculum.levels if config.curriculum else None
    return select_problems(problems, ProblemFilter(levels=levels)) if config.eval.problems_per_level else []


def check_held_out(config: Config, stages: Sequence[StagePlan], problems: Sequence[Problem]) -> None:
    """Raises DataError when a level that a curriculum trains on has no held-out problems to be evaluated on."""
    if config.curriculum and config.eval.problems_per_level:
        there = {problem.level for problem in problems}
        if missing := [level for stage in stages for level in stage.levels if level not in there]:
            raise DataError(
                f"held-out data must have problems of every level that is trained on, got none of {missing}."
            )


def _stage_problems(config: Config, spec: StageSpec, problems: P) -> P:
    chosen = choose_problems(problems, spec.problems, config.seed, with_solution=spec.kind == "sft")
    if not chosen:
        raise DataError(
            f"stage {spec.name} must have problems{' with worked solutions' if spec.kind == 'sft' else ''}, "
            f"got none of {config.data.name} with {spec.problems.model_dump(exclude_none=True) or 'no filter'}."
        )
    return chosen


def replay_buffer(config: Config, spec: StageSpec, checkpoints: Sequence[Path]) -> ReplayBuffer | None:
    """What the stage can replay; None when it replays nothing.

    Args:
        checkpoints: results of the chain's stages before it, in order.
    """
    if spec.replay is None:
        return None
    buffer = ReplayBuffer(spec.replay.capacity, spec.replay.sampling, config.seed)
    return buffer.add(item for source in spec.replay.sources for item in read_trained(checkpoints[source]))


def chain_record(chain: ChainSpec, stages: Sequence[StagePlan], keys: Sequence[str | None]) -> dict[str, Any]:
    """One entry of ``chains.json``: what the report needs to find a chain's evaluations.

    Args:
        keys: of the stages in a search, where stages have directories of their own; else None for each.
    """
    return {
        "name": chain.name,
        "setting": chain.setting,
        "seed": chain.seed,
        "is_baseline": chain.is_baseline,
        "values": chain.values,
        "stages": [
            {
                "name": stage.spec.name,
                "kind": stage.spec.kind,
                "levels": stage.levels,
                "key": key,
                "directory": f"stages/{key}" if key else ".",
            }
            for stage, key in zip(stages, keys, strict=True)
        ],
    }


@dataclass(frozen=True)
class PlannedChain:
    """A chain with its stages, their problems and their keys."""

    spec: ChainSpec
    stages: tuple[StagePlan[ProblemTable], ...]
    keys: tuple[str, ...]
    problems: ProblemTable
    """All of the training data: what the replay buffer names."""
    held_out: tuple[Problem, ...]


def plan_chains(config: Config, cache: Path) -> list[PlannedChain]:
    """Every chain with its stages and keys.

    Args:
        cache: where tables of training problems are kept.

    Raises:
        ConfigError: a wrong setting, or chains that need different engines.
        DataError: a stage without problems.
    """
    chains = []
    loaded: dict[str, tuple[ProblemTable, list[Problem]]] = {}  # once, not for every chain
    for spec in chain_specs(config):
        if _engine_settings(spec.config) != _engine_settings(config):
            raise ConfigError(
                "search must not change which actors there are and what they are started with (model, rollout, reward, "
                "resources of the learner, kinds of stages, longest completion, largest group), "
                f"got {spec.name}: engines stay up from the first stage to the last. Run two searches."
            )
        data = spec.config.data.model_dump_json()
        if data not in loaded:
            problems = load_table(spec.config.data, "train", cache)
            loaded[data] = problems, load_problems(spec.config.data, "eval")
        chains.append(_plan_chain(spec, *loaded[data]))
    return chains


def _plan_chain(spec: ChainSpec, problems: ProblemTable, all_held_out: Sequence[Problem]) -> PlannedChain:
    if not spec.config.eval.problems_per_level:
        raise ConfigError("eval.problems_per_level must be above 0 in a search, got 0: accuracy is what it compares.")
    held_out = held_out_problems(spec.config, all_held_out)
    stages = plan_stages(spec.config, problems)
    check_held_out(spec.config, stages, held_out)
    digests = [problems_digest(stage.problems) for stage in stages]
    keys = stage_keys(spec.config, [stage.spec for stage in stages], digests, problems_digest(held_out))
    return PlannedChain(spec, tuple(stages), tuple(keys), problems, tuple(held_out))


def _engine_settings(config: Config) -> Any:
    model = config.model.model_dump(exclude={"lora"})
    return model, config.rollout, config.reward, engine_limits(config), plan_actors(config)
