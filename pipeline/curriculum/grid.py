"""The chains of a search: its grid, random draws and baselines, each with every seed."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.config import SET_WHOLE, Config, RangeConfig, SearchConfig, with_settings
from pipeline.errors import ConfigError
from pipeline.files import safe_name

TUNE_SAMPLERS = frozenset(
    f"{quantized}{name}"
    for name in ("uniform", "loguniform", "randint", "lograndint", "randn")
    for quantized in ("", "q")
)
"""Samplers of Ray Tune that draw a number."""
OPTUNA_SAMPLERS = ("uniform", "quniform", "loguniform", "randint", "lograndint")
"""Those that Optuna draws from in the same way."""
_NUMBERS = TypeAdapter(tuple[int | float, ...])


@dataclass(frozen=True)
class ChainSpec:
    """One chain of a search."""

    name: str
    """The setting and the seed. Safe as a directory name."""
    setting: str
    """Differences from the configuration file, without the seed: ``replay_ratio=0.3``."""
    seed: int
    is_baseline: bool
    values: dict[str, Any]
    """The settings by dotted key."""
    config: Config


@dataclass(frozen=True)
class TuneSampler:
    """A sampler of Ray Tune by name: ``loguniform`` with (1e-5, 1e-3)."""

    name: str
    arguments: tuple[int | float, ...]


def chain_specs(config: Config) -> list[ChainSpec]:
    """The chains of a search, validated: (grid x draws, then the baselines) x seeds. The same file gives the same
    chains.

    Args:
        config: with the draws of its space, if it has one (actors/driver/drawing.py).

    Raises:
        ConfigError: a setting of the search does not exist or has an invalid value.
    """
    search = config.search or SearchConfig()
    distinct = {_setting_name(values): values for values in _search_settings(search)}
    baselines = [dict(_leaves(values)) for values in search.baselines]
    # What is drawn may be a baseline by chance, which runs anyway.
    as_baseline = {_setting_name(values) for values in baselines} if search.space else set()
    settings = [(values, False) for name, values in distinct.items() if name not in as_baseline]
    settings += [(values, True) for values in baselines]
    chains = []
    for (values, is_baseline), seed in itertools.product(settings, search.seeds or [config.seed]):
        setting = _setting_name(values) or "default"
        chains.append(
            ChainSpec(
                name=safe_name(f"{setting},seed={seed}", signs="_.,=+-"),
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


def _search_settings(search: SearchConfig) -> Iterator[dict[str, Any]]:
    """Settings by dotted key, for every combination of the grid and every draw."""
    grid = dict(_leaves(search.grid))
    if "seed" in grid:
        raise ConfigError("search.grid must not have seed: set search.seeds.")
    if both := [key for key in grid if any(_overlap(key, drawn) for draw in search.draws for drawn in draw)]:
        raise ConfigError(f"search.grid and search.space must have different settings, got {both[0]} in both.")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"search.grid.{key} must be a list of values, got {values!r}.")
    for values in itertools.product(*grid.values()):
        for draw in search.draws if search.space else [{}]:
            yield {**dict(zip(grid, values, strict=True)), **draw}


def grid_keys(search: SearchConfig) -> frozenset[str]:
    """The settings of the grid, by dotted key."""
    return frozenset(key for key, _ in _leaves(search.grid))


def space_entries(search: SearchConfig) -> dict[str, list[Any] | TuneSampler]:
    """The source of the value of each setting of the space, by dotted key.

    Raises:
        ConfigError: an entry is neither a list, nor a range, nor a sampler that can be used.
    """
    if "seed" in search.space:
        raise ConfigError("search.space must not have seed: set search.seeds.")
    entries = {key: _space_entry(key, value) for key, value in _leaves(search.space, is_leaf=_is_entry)}
    if not entries and search.space:
        raise ConfigError(f"search.space must have a setting to draw, got {search.space!r}.")
    for key, entry in entries.items():
        if search.drawn_by == "optuna" and isinstance(entry, TuneSampler) and entry.name not in OPTUNA_SAMPLERS:
            raise ConfigError(
                f"search.space.{key} must be what Optuna can draw from ({', '.join(OPTUNA_SAMPLERS)}, or a list), got "
                f"{entry.name}. Use one of these, or search.drawn_by=random."
            )
    return entries


def _leaves(
    settings: Mapping[str, Any], is_leaf: Callable[[Mapping[str, Any]], bool] | None = None, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Nested settings, flattened: dotted key and value. Stops at the mappings that ``is_leaf`` accepts."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and key not in SET_WHOLE and not (is_leaf and is_leaf(value)):
            yield from _leaves(value, is_leaf, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _overlap(key: str, other: str) -> bool:
    """One of the settings is the other one or holds it."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def _is_entry(value: Mapping[str, Any]) -> bool:
    return {"low", "high"} <= value.keys() or (len(value) == 1 and value.keys() <= TUNE_SAMPLERS)


def _space_entry(key: str, value: Any) -> list[Any] | TuneSampler:
    if isinstance(value, list) and value:
        return value
    try:
        if isinstance(value, Mapping) and value.keys() <= TUNE_SAMPLERS:
            ((name, given),) = value.items()
            arguments = _NUMBERS.validate_python(given)
            _check_arguments(name, arguments)
            return TuneSampler(name, arguments)
        drawn_from = RangeConfig.model_validate(value)
    except ValueError as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"search.space.{key} must be a list, {{low, high, log}} or a sampler of Ray Tune with its arguments "
            f"({', '.join(sorted(TUNE_SAMPLERS))}), got {value!r}: {reason}"
        ) from None
    return TuneSampler("loguniform" if drawn_from.log else "uniform", (drawn_from.low, drawn_from.high))


def _check_arguments(name: str, arguments: tuple[int | float, ...]) -> None:
    """Raises ValueError for what Ray Tune would take for something else, or fail on later."""
    if len(arguments) != (3 if name.startswith("q") else 2):
        raise ValueError(f"{name} takes two numbers{', and the step to round to' * name.startswith('q')}")
    if name.startswith("q") and arguments[2] <= 0:
        raise ValueError(f"the step must be above 0, got {arguments[2]:g}")
    if "randint" in name and not all(isinstance(each, int) for each in arguments):
        raise ValueError(f"{name} takes whole numbers")
    if "randn" not in name:
        RangeConfig(low=arguments[0], high=arguments[1], log="log" in name)


def _setting_name(values: Mapping[str, Any]) -> str:
    """``replay_ratio=0.3,sampler=pools``: the last part of each key, except ``name``, or the whole key if that is
    ambiguous."""
    short = [key.removesuffix(".name").rpartition(".")[2] for key in values]
    names = [last if short.count(last) == 1 else key for key, last in zip(values, short, strict=True)]
    return ",".join(f"{name}={_value_name(value)}" for name, value in zip(names, values.values(), strict=True))


def _value_name(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_value_name, value))
    if isinstance(value, Mapping):  # ``pools+hard_weight=0.5``
        parts = _leaves(value)
        return "+".join(_value_name(v) if key == "name" else f"{key}={_value_name(v)}" for key, v in parts)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
