"""From a configuration to stages, chains and their keys.

A chain is one configuration's sequence of stages. A stage's key is a hash of all that its result depends on,
so stages of two chains with the same key are one stage, trained once.
"""

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from pipeline.config import (
    CarryConfig,
    Config,
    CurriculumConfig,
    GRPOConfig,
    ProblemFilter,
    PromotionConfig,
    RangeConfig,
    SearchConfig,
    SFTConfig,
    StageConfig,
    with_settings,
)
from pipeline.data.selection import natural_order
from pipeline.data.table import ProblemTable
from pipeline.errors import ConfigError
from pipeline.seeds import derive_seed
from pipeline.training.schedules import num_steps
from pipeline.types import Problem

P = TypeVar("P", bound=Sequence[Problem])
KEY_FORMAT = 1
"""Part of every key. Raise it when the same settings come to mean another result."""


@dataclass(frozen=True)
class ReplaySpec:
    """What a stage replays."""

    ratio: float
    capacity: int
    sampling: Literal["reservoir", "by_level"]
    sources: tuple[int, ...]
    """Indices of the earlier stages of the chain whose problems are in the buffer, oldest first."""


@dataclass(frozen=True)
class StageSpec:
    """One stage of a chain, with nothing left to look up."""

    name: str
    """Also of its directory, ``checkpoints/<name>``, and in the seed of its order of problems."""
    kind: Literal["sft", "grpo"]
    levels: tuple[str, ...] | None
    """The levels it trains on; None: whatever its problems have."""
    problems: ProblemFilter
    settings: SFTConfig | GRPOConfig
    batch_size: int
    """Over all learner workers."""
    carry: CarryConfig
    replay: ReplaySpec | None
    """None: nothing is replayed, because of the ratio or because nothing was trained on before."""
    promotion: PromotionConfig | None
    mixes_levels: bool = False
    """It takes the place of one stage per level, with as many steps as these have together."""


@dataclass(frozen=True)
class ChainSpec:
    """One chain of a search."""

    name: str
    """The setting and the seed. Safe as the name of a directory."""
    setting: str
    """What differs from the configuration file, the seed left out: ``replay_ratio=0.3``."""
    seed: int
    is_baseline: bool
    values: dict[str, Any]
    """The settings by dotted key."""
    config: Config


# Stages ------------------------------------------------------------------------------------------


def stage_specs(config: Config, data_levels: Sequence[str]) -> list[StageSpec]:
    """The stages of a chain, in order, those with ``each_level`` expanded.

    Args:
        data_levels: levels of the training data, in any order.

    Raises:
        ConfigError: a level that the data lacks, or two stages of one name.
    """
    curriculum = config.curriculum
    order = _level_order(curriculum, data_levels) if curriculum else []
    expanded = [item for stage in config.stages for item in _expand(stage, order)]
    names = _distinct_names([name for _, name, _ in expanded])
    specs: list[StageSpec] = []
    sources: list[int] = []
    for index, ((stage, _, levels), name) in enumerate(zip(expanded, names, strict=True)):
        if not stage.carry.replay_buffer:
            sources = []
        specs.append(_spec(config, stage, name, levels, tuple(sources)))
        sources.append(index)
    return specs


def total_steps(spec: StageSpec, num_examples_by_level: Mapping[str | None, int]) -> int:
    """Steps of a stage. One that mixes levels has as many as a stage for each level would have together."""
    if spec.mixes_levels:
        return sum(num_steps(spec.settings, spec.batch_size, count) for count in num_examples_by_level.values())
    return num_steps(spec.settings, spec.batch_size, sum(num_examples_by_level.values()))


def _level_order(curriculum: CurriculumConfig, data_levels: Sequence[str]) -> list[tuple[str, ...]]:
    """The levels of each stage: one level per stage, or all of them in one."""
    levels = curriculum.levels or sorted(set(data_levels), key=natural_order)
    order = curriculum.level_order
    asked = order if isinstance(order, list) else levels
    if missing := [level for level in asked if level not in data_levels]:
        raise ConfigError(
            f"curriculum.levels and level_order must be levels of the training data, got {missing}: "
            f"it has {sorted(set(data_levels), key=natural_order) or 'none'}. Set data.fields.level, or other levels."
        )
    if not levels:
        raise ConfigError("each_level needs training data with levels, got none. Set data.fields.level.")
    if order == "mixed":
        return [tuple(levels)]
    return [(level,) for level in (reversed(levels) if order == "reverse" else asked)]


def _expand(
    stage: StageConfig, order: Sequence[tuple[str, ...]]
) -> Iterator[tuple[StageConfig, str, tuple[str, ...] | None]]:
    if not stage.each_level:
        yield stage, stage.name, tuple(stage.problems.levels) if stage.problems.levels is not None else None
        return
    for levels in order:
        suffix = "mixed" if len(levels) > 1 else re.sub(r"[^A-Za-z0-9_.-]", "", levels[0])
        yield stage, f"{stage.name}_{suffix}", levels


def _distinct_names(names: Sequence[str]) -> list[str]:
    """A level that comes back gets a number: ``level_1``, ``level_2``, ``level_1-again2``."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}-again{seen[name]}")
    if len(set(distinct)) < len(distinct):
        raise ConfigError(f"stages must have different names, got {distinct}: files are named after them.")
    if taken := [
        name
        for name in distinct
        if name in ("before", "checkpoint_last", "checkpoint_best") or name.startswith("step_")
    ]:
        raise ConfigError(f"stages must not be named like a checkpoint or an evaluation of the run, got {taken}.")
    return distinct


def _spec(
    config: Config, stage: StageConfig, name: str, levels: tuple[str, ...] | None, sources: tuple[int, ...]
) -> StageSpec:
    curriculum = config.curriculum
    problems = stage.problems
    if stage.each_level and levels is not None:
        problems = problems.model_copy(update={"levels": list(levels)})
    if curriculum and problems.max_per_level is None:
        problems = problems.model_copy(update={"max_per_level": curriculum.max_train_samples_per_level})
    ratio = curriculum.replay_ratio if curriculum else 0.0
    ratio = ratio if stage.replay_ratio is None else stage.replay_ratio
    replay = None
    if curriculum and ratio > 0 and sources:
        replay = ReplaySpec(ratio, curriculum.buffer_capacity, curriculum.buffer_sampling, sources)
    settings = config.stage_settings(stage)
    return StageSpec(
        name=name,
        kind=stage.kind,
        levels=levels,
        problems=problems,
        settings=settings,
        batch_size=config.batch_size(settings),
        carry=stage.carry,
        replay=replay,
        promotion=curriculum.promotion if curriculum and stage.each_level else None,
        mixes_levels=levels is not None and len(levels) > 1 and stage.each_level,
    )


# Promotion ---------------------------------------------------------------------------------------


def stage_decision(
    rule: PromotionConfig, accuracies: Sequence[float], *, steps_left: bool, num_repeats: int
) -> Literal["go on", "end", "repeat"]:
    """What to do after an evaluation of the stage's level.

    Args:
        accuracies: all evaluations of this pass over the stage's steps, oldest first, at least one. The one
            before its first step belongs to it.
        num_repeats: how often the stage was run again before this pass.
    """
    reached = rule.threshold is not None and accuracies[-1] >= rule.threshold
    since_best = len(accuracies) - 1 - accuracies.index(max(accuracies))
    stalled = rule.patience is not None and since_best >= rule.patience
    if steps_left and not reached and not stalled:
        return "go on"
    missed = rule.threshold is not None and not reached
    return "repeat" if missed and num_repeats < rule.max_repeats else "end"


# Keys --------------------------------------------------------------------------------------------


def root_key(config: Config, eval_digest: str) -> str:
    """Of a chain's start: the untrained model and its evaluation. The same for every seed and order."""
    return _digest({"format": KEY_FORMAT, "model": config.model.model_dump(), **_evaluation(config, eval_digest)})


def stage_keys(config: Config, specs: Sequence[StageSpec], data_digests: Sequence[str], eval_digest: str) -> list[str]:
    """One key per stage, over everything that its result depends on, and nothing else.

    How many resources a stage gets is not part of it, and neither is a replay setting that has nothing to act on:
    the first stage has one key for all replay ratios.

    Args:
        data_digests: of each stage's own problems, by ``problems_digest``.
        eval_digest: of the held-out problems.
    """
    root = root_key(config, eval_digest)
    keys: list[str] = []
    for spec, data in zip(specs, data_digests, strict=True):
        parent = keys[-1] if keys and spec.carry.weights else root
        keys.append(_digest(_inputs(config, spec, data, parent, keys)))
    return keys


def problems_digest(problems: Sequence[Problem]) -> str:
    """Of the problems with all their texts, in order. A table has one already, over its source and its rows."""
    if isinstance(problems, ProblemTable):
        return problems.digest
    return _digest([[p.id, p.prompt, p.gold, p.solution, p.level, p.type, p.source, p.prompt_text] for p in problems])


def _inputs(config: Config, spec: StageSpec, data_digest: str, parent: str, keys: Sequence[str]) -> dict[str, Any]:
    replay = spec.replay and {
        "ratio": spec.replay.ratio,
        "capacity": spec.replay.capacity,
        "sampling": spec.replay.sampling,
        "sources": [keys[index] for index in spec.replay.sources],
    }
    inputs = {
        "parent": parent,
        "seed": config.seed,
        "name": spec.name,
        "kind": spec.kind,
        "settings": spec.settings.model_dump(),
        "mixes_levels": spec.mixes_levels,
        "data": data_digest,
        "carry": {"weights": spec.carry.weights, "optimizer": spec.carry.optimizer},
        "replay": replay,
        "promotion": spec.promotion and spec.promotion.model_dump(),
        "learner": config.learner.model_dump(include={"num_workers", "tokens_per_micro_batch"}),
        "trainer": config.trainer.model_dump(),
    }
    if spec.kind == "grpo":
        inputs["rollout"] = config.rollout.model_dump(exclude=_RESOURCES)
        inputs["reward"] = config.reward.model_dump(include={"functions", "timeout_s", "memory_limit_mib"})
    return inputs


_RESOURCES = {"num_workers", "num_cpus", "num_gpus", "memory_gib", "num_threads", "tensor_parallel_size"} | {
    "gpu_memory_utilization",
    "kv_cache_gib",
    "enforce_eager",
}


def _evaluation(config: Config, eval_digest: str) -> dict[str, Any]:
    return {
        "eval": config.eval.model_dump(exclude={"at_start"}),
        "eval_problems": eval_digest,
        "max_prompt_length": config.rollout.max_prompt_length,  # longer ones are not evaluated
    }


def _digest(value: Any) -> str:
    """16 hex digits (64 bits) of a canonical JSON text: enough for thousands of stages, short as a name."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Chains ------------------------------------------------------------------------------------------


def chain_specs(config: Config) -> list[ChainSpec]:
    """All chains of a search, checked: (grid x draws, then the baselines) x seeds. Same file, same chains.

    Raises:
        ConfigError: a setting of the search does not exist or has a wrong value.
    """
    search = config.search or SearchConfig()
    drawn = {_setting_name(values): values for values in _search_settings(config, search)}  # each once
    settings = [(values, False) for values in drawn.values()]
    settings += [(dict(_leaves(values)), True) for values in search.baselines]
    chains = []
    for (values, is_baseline), seed in itertools.product(settings, search.seeds or [config.seed]):
        setting = _setting_name(values) or "default"
        chains.append(
            ChainSpec(
                name=re.sub(r"[^A-Za-z0-9_.,=+-]", "", f"{setting},seed={seed}"),
                setting=setting,
                seed=seed,
                is_baseline=is_baseline,
                values={**values, "seed": seed},
                config=with_settings(config, {**values, "seed": seed}).model_copy(update={"search": None}),
            )
        )
    names = [chain.name for chain in chains]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"search must name every chain once, got {twice} twice.")
    return chains


def _search_settings(config: Config, search: SearchConfig) -> Iterator[dict[str, Any]]:
    grid = dict(_leaves(search.grid))
    if "seed" in {*grid, *search.space}:
        raise ConfigError("search.grid and search.space must not have seed: set search.seeds.")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"search.grid.{key} must be a list of values, got {values!r}.")
    space = {key: _choices(key, value) for key, value in _leaves(search.space, is_leaf=_is_range)}
    for values in itertools.product(*grid.values()):
        for draw in range(search.num_draws if space else 1):
            generator = random.Random(derive_seed(config.seed, "search", draw))
            drawn = {key: _draw(choices, generator) for key, choices in space.items()}
            yield {**dict(zip(grid, values, strict=True)), **drawn}


def _leaves(settings: Mapping[str, Any], is_leaf: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted key."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and not (is_leaf and is_leaf(value)):
            yield from _leaves(value, is_leaf, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_range(value: Mapping[str, Any]) -> bool:
    return {"low", "high"} <= value.keys()


def _choices(key: str, value: Any) -> list[Any] | RangeConfig:
    if isinstance(value, list) and value:
        return value
    try:
        return RangeConfig.model_validate(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"search.space.{key} must be a list or {{low, high, log}}, got {value!r}: {reason}") from None


def _draw(choices: list[Any] | RangeConfig, generator: random.Random) -> Any:
    if isinstance(choices, list):
        return generator.choice(choices)
    if choices.log:
        return math.exp(generator.uniform(math.log(choices.low), math.log(choices.high)))
    return generator.uniform(choices.low, choices.high)


def _setting_name(values: Mapping[str, Any]) -> str:
    """``replay_ratio=0.3,level_order=reverse``: last parts of the keys, whole keys where these are not enough."""
    short = [key.rpartition(".")[2] for key in values]
    names = [last if short.count(last) == 1 else key for key, last in zip(values, short, strict=True)]
    return ",".join(f"{name}={_value_name(value)}" for name, value in zip(names, values.values(), strict=True))


def _value_name(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_value_name, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
