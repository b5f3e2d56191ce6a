"""Which actors a configuration asks for, and how large its engines are. Needs no Ray."""

from dataclasses import dataclass

from pipeline.config import Config, GRPOConfig, StageConfig
from pipeline.data import load_problems
from pipeline.errors import DataError
from pipeline.schedules import select_problems
from pipeline.types import Problem

EVAL_CHUNK = 32
"""Prompts of an evaluation that share an engine's batch. Fixed, so that results do not depend on engines."""


@dataclass(frozen=True)
class ActorPlan:
    name: str
    count: int
    num_cpus: float
    num_gpus: float
    memory_gib: float


def plan_actors(config: Config) -> list[ActorPlan]:
    """All actors that live at the same time, per kind."""
    rollout, reward, learner = config.rollout, config.reward, config.learner
    return [
        ActorPlan("learner", learner.num_workers, learner.num_cpus, learner.num_gpus, learner.memory_gib),
        ActorPlan("rollout", rollout.num_workers, rollout.num_cpus, rollout.num_gpus, rollout.memory_gib),
        ActorPlan("reward", reward.num_workers, reward.num_cpus, 0.0, reward.memory_gib),
        ActorPlan("weight store", 1, 0.0, 0.0, 0.0),
    ]


def engine_limits(config: Config) -> tuple[int, int]:
    """(tokens of the longest prompt and completion, sequences decoded together) over all stages."""
    rollout = config.rollout
    longest = max(rollout.max_completion_length, config.eval.max_completion_length)
    settings = [config.stage_settings(stage) for stage in config.stages]
    chunk = max(
        (s.num_generations * rollout.prompts_per_chunk for s in settings if isinstance(s, GRPOConfig)), default=1
    )
    return rollout.max_prompt_length + longest, max(chunk, EVAL_CHUNK)


def stage_problems(config: Config, stage: StageConfig) -> list[Problem]:
    """The training problems of a stage. Raises DataError when there are none."""
    problems = select_problems(load_problems(config.data, "train"), stage.problems)
    if stage.kind == "sft":
        problems = [problem for problem in problems if problem.solution is not None]
    if not problems:
        raise DataError(
            f"stage {stage.name} must have problems{' with worked solutions' if stage.kind == 'sft' else ''}, "
            f"got none of {config.data.name} with {stage.problems.model_dump(exclude_none=True) or 'no filter'}."
        )
    return problems
