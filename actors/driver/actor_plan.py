"""The actors a configuration asks for, their reservations, and the limits of its engines. Needs no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import Config, EngineConfig, GRPOConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class ActorPlan:
    """Actors of one kind, and what each of them reserves."""

    name: str
    count: int
    num_cpus: float
    num_gpus: float
    memory_gib: float


def plan_actors(config: Config) -> tuple[ActorPlan, ...]:
    """All actors of a training job that live at the same time. SFT alone needs no graders and,
    without evaluations, no engines."""
    rollout, reward = config.rollout, config.reward
    scores = _scores(config)
    num_rollout = rollout.num_workers if scores or config.eval.problems_per_level else 0
    return (
        plan_learners(config),
        ActorPlan("rollout", num_rollout, rollout.num_cpus, rollout.num_gpus, rollout.memory_gib),
        ActorPlan("frozen", len(frozen_models(config)), rollout.num_cpus, rollout.num_gpus, rollout.memory_gib),
        ActorPlan("reward", reward.num_workers if scores else 0, reward.num_cpus, 0.0, reward.memory_gib),
        ActorPlan("weight store", 1, 0.0, 0.0, 0.0),
    )


def frozen_models(config: Config) -> list[str]:
    """Names of the models that have an engine of their own: a solver, a teacher."""
    solver, teacher = config.questions.solver, config.questions.teacher
    names = [solver.model if solver and _scores(config) else None, teacher if _is_taught(config) else None]
    return list(dict.fromkeys(name for name in names if name is not None))


def _scores(config: Config) -> bool:
    """True if completions get rewards in some stage or evaluation."""
    is_replayed = config.rollout.replay is not None
    samples = any((stage.kind == "grpo" and not is_replayed) or stage.write for stage in config.stages)
    return samples or (config.data.write is not None and config.eval.problems_per_level > 0)


def _is_taught(config: Config) -> bool:
    return any(stage.write and stage.write.by == "teacher" for stage in config.stages)


def plan_learners(config: Config) -> ActorPlan:
    """The learners of a stage."""
    learner = config.learner
    return ActorPlan("learner", learner.num_workers, learner.num_cpus, learner.num_gpus, learner.memory_gib)


def plan_engines(rollout: EngineConfig) -> tuple[ActorPlan, ...]:
    """All actors of a job that does not train."""
    return (ActorPlan("rollout", rollout.num_workers, rollout.num_cpus, rollout.num_gpus, rollout.memory_gib),)


def check_devices(config: Config) -> None:
    """Raises ConfigError if the learners' device does not fit their GPUs, or the engines' cache their memory."""
    device, num_gpus, attention = config.model.device, config.learner.num_gpus, config.model.attn_implementation
    if device == "cuda" and not num_gpus:
        raise ConfigError(
            "learner.num_gpus must be above 0 for model.device=cuda, got 0: Ray shows learners only the GPUs that they "
            "reserve. Set learner.num_gpus=1, or model.device=cpu."
        )
    if device == "cpu" and num_gpus:
        raise ConfigError(
            f"learner.num_gpus must be 0 for model.device=cpu, got {num_gpus:g}: the GPU would be reserved and unused. "
            "Set model.device=cuda, or learner.num_gpus=0."
        )
    if "flash" in attention and not num_gpus:
        raise ConfigError(
            f"learner.num_gpus must be above 0 for model.attn_implementation={attention}, got 0: it runs on GPUs only. "
            "Use sdpa."
        )
    if {actor.name: actor.count for actor in plan_actors(config)}["rollout"]:
        check_cache(config.rollout)


def check_cache(rollout: EngineConfig) -> None:
    """Raises ConfigError if a CPU engine's key-value cache is larger than all of its memory."""
    if not rollout.num_gpus and rollout.kv_cache_gib > rollout.memory_gib:
        raise ConfigError(
            f"rollout.memory_gib must be at least rollout.kv_cache_gib for CPU engines, got {rollout.memory_gib:g} and "
            f"{rollout.kv_cache_gib:g}: it holds the cache and the weights. Raise it, or lower the cache."
        )


def needed_resources(actors: Sequence[ActorPlan]) -> dict[str, float]:
    """The sum of all reservations, by Ray's names: memory in bytes."""
    return {
        "CPU": sum(actor.count * actor.num_cpus for actor in actors),
        "GPU": sum(actor.count * actor.num_gpus for actor in actors),
        "memory": sum(actor.count * int(actor.memory_gib * 2**30) for actor in actors),
    }


def bundles(actors: Sequence[ActorPlan]) -> list[dict[str, float]]:
    """Reservation of each actor, by Ray's names. Actors that reserve nothing are left out."""
    needs = [needed_resources([replace(actor, count=1)]) for actor in actors for _ in range(actor.count)]
    return [bundle for need in needs if (bundle := {name: amount for name, amount in need.items() if amount})]


def engine_width(config: Config) -> int:
    """Completions that can be in an engine of a training job at once: its width, or fewer if only GRPO steps use the
    engine and they ask for fewer."""
    rollout, others = config.rollout, (config.eval.problems_per_level, config.search, config.questions.solver)
    if any(others) or config.data.write or any(stage.write for stage in config.stages):
        return rollout.width
    steps = [each for each in map(config.stage_settings, config.stages) if isinstance(each, GRPOConfig)]
    if any(each.sampler and each.sampler.name == "dynamic" for each in steps):
        return rollout.width  # it asks again for groups that it drops
    asked = max((each.batch_size * each.num_generations for each in steps), default=1) * (1 + rollout.max_staleness)
    return min(rollout.width, asked)


def engine_limits(config: Config) -> tuple[int, int]:
    """Limits of the engines over all stages: tokens of the longest prompt and completion together, and sequences
    decoded at once."""
    rollout = config.rollout
    longest = max(rollout.max_completion_length, config.eval.max_completion_length)
    if config.questions.solver:  # it is asked for a solution of what the policy wrote
        longest = max(longest, config.questions.solver.max_completion_length)
    return rollout.max_prompt_length + longest, rollout.width
