"""The stages of a chain, from a configuration."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config import (
    CarryConfig,
    Config,
    CurriculumConfig,
    GRPOConfig,
    ProblemFilter,
    PromotionConfig,
    SFTConfig,
    StageConfig,
    StageKind,
    WriteConfig,
)
from pipeline.data.selection import natural_order
from pipeline.errors import ConfigError
from pipeline.files import safe_name
from pipeline.training.schedules import num_steps


@dataclass(frozen=True)
class ReplaySpec:
    """Replay settings of a stage."""

    ratio: float
    capacity: int
    sampling: Literal["reservoir", "by_level"]
    sources: tuple[int, ...]
    """Indices of the chain's earlier stages whose problems are in the buffer, oldest first."""


@dataclass(frozen=True)
class StageSpec:
    """One stage of a chain, with every setting resolved."""

    name: str
    """Also names its directory, ``checkpoints/<name>``, and is part of the seed of its order of problems."""
    kind: StageKind
    levels: tuple[str, ...] | None
    """The levels it trains on. None: all levels of its problems."""
    problems: ProblemFilter
    settings: SFTConfig | GRPOConfig
    batch_size: int
    """Over all learner workers."""
    carry: CarryConfig
    replay: ReplaySpec | None
    """None: nothing is replayed, because the ratio is 0 or no earlier stage fills the buffer."""
    promotion: PromotionConfig | None
    mixes_levels: bool = False
    """It replaces one stage per level, with as many steps as these have together."""
    balance_levels: bool = False
    """Levels take turns in its batches."""
    write: WriteConfig | None = None
    """Problems that are written at its end."""
    written_frac: float = 0.0
    """Share of its problems that earlier stages wrote."""


def stage_specs(config: Config, data_levels: Sequence[str]) -> list[StageSpec]:
    """The stages of a chain, in order, with ``each_level`` expanded.

    Args:
        data_levels: levels of the training data, in any order.

    Raises:
        ConfigError: the data lacks a level, or two stages have the same name.
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
    """Steps of a stage. One that mixes levels has as many as one stage per level would have together."""
    if spec.mixes_levels:
        return sum(num_steps(spec.settings, spec.batch_size, count) for count in num_examples_by_level.values())
    return num_steps(spec.settings, spec.batch_size, sum(num_examples_by_level.values()))


def _level_order(curriculum: CurriculumConfig, data_levels: Sequence[str]) -> list[tuple[str, ...]]:
    """The levels of each ``each_level`` stage: one level per stage, or all of them in one."""
    levels = curriculum.levels or sorted(set(data_levels), key=natural_order)
    order = curriculum.level_order
    chosen = order if isinstance(order, list) else levels
    if missing := [level for level in chosen if level not in data_levels]:
        raise ConfigError(
            f"curriculum.levels and level_order must be levels of the training data, got {missing}: "
            f"it has {sorted(set(data_levels), key=natural_order) or 'none'}. Set data.fields.level, or other levels."
        )
    if not levels:
        raise ConfigError("each_level needs training data with levels, got none. Set data.fields.level.")
    if order == "mixed":
        return [tuple(levels)]
    return [(level,) for level in (reversed(levels) if order == "reverse" else chosen)]


def _expand(
    stage: StageConfig, order: Sequence[tuple[str, ...]]
) -> Iterator[tuple[StageConfig, str, tuple[str, ...] | None]]:
    """Settings, name and levels of the stages that a configured stage stands for."""
    if not stage.each_level:
        yield stage, stage.name, tuple(stage.problems.levels) if stage.problems.levels is not None else None
        return
    for levels in order:
        suffix = "mixed" if len(levels) > 1 else levels[0]
        yield stage, safe_name(f"{stage.name}_{suffix}"), levels


def _distinct_names(names: Sequence[str]) -> list[str]:
    """Number the repetitions of a level: ``level_1``, ``level_2``, ``level_1-again2``."""
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
        balance_levels=stage.balance_levels,
        write=stage.write,
        written_frac=stage.written_frac,
    )
