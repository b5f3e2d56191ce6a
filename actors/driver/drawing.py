"""Draws from a search's space: by Ray Tune's samplers or, from the scores of earlier draws, by Optuna.

Draws are recorded in the configuration (``search.draws``), so a resumed search has the same ones.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import Config, SearchConfig
from pipeline.curriculum.grid import grid_keys, space_entries
from pipeline.errors import ConfigError, first_line
from pipeline.seeds import derive_seed

if TYPE_CHECKING:
    from ray.tune.search.sample import Domain

Draw = Mapping[str, Any]
"""Settings by dotted key."""


@dataclass(frozen=True)
class _Entry:
    """The source of the values of one setting."""

    domain: "Domain"
    values: list[Any] | None
    """The list, if it is one: its places are drawn then, because Optuna takes plain values only."""

    def value(self, drawn: Any) -> Any:
        plain = drawn.item() if isinstance(drawn, np.generic) else drawn
        if isinstance(plain, float):
            plain = float(f"{plain:.12g}")  # a multiple of 0.1 is 0.3, not 0.30000000000000004
        return plain if self.values is None else self.values[plain]

    def drawn(self, value: Any) -> Any:
        """The inverse of ``value``."""
        return value if self.values is None else self.values.index(value)


def with_draws(config: Config) -> Config:
    """The configuration with the draws that need no results: all of them, or Optuna's first round.

    Raises:
        ConfigError: an entry of the space is wrong.
    """
    search = config.search
    if search is None or not search.space:
        return config
    entries = _entries(search)
    if other := [draw for draw in search.draws if draw.keys() != entries.keys()]:
        raise ConfigError(
            f"search.space must have the settings of the search's earlier draws, got {', '.join(entries)} instead of "
            f"{', '.join(other[0])}. To search others, begin a new search."
        )
    if search.drawn_by == "optuna":
        return config if search.draws else _with_round(config, [])
    made = search.draws[: search.num_draws]
    made += [_sampled(entries, config.seed, index) for index in range(len(made), search.num_draws)]
    return _recording(config, made)


def require_draws(config: Config) -> None:
    """Raises ConfigError for a search to resume that drew its space and did not record it, as earlier versions did."""
    if config.search and config.search.space and not config.search.draws:
        raise ConfigError(
            "search.draws must hold what this search drew, got nothing: an earlier version made it, and this one "
            "would draw other values. Set search.draws to the drawn settings in chains.json, or begin a new search."
        )


def with_next_draws(config: Config, run_path: Path) -> Config | None:
    """The configuration with Optuna's next round added, once every draw so far was run. None if all draws are made.

    Args:
        run_path: of the search.
    """
    search = config.search
    if search is None or search.drawn_by == "random" or len(search.draws) >= search.num_draws:
        return None
    return _with_round(config, draw_scores(run_path, search.draws, grid_keys(search)))


def draw_scores(run_path: Path, draws: Sequence[Draw], grid: Collection[str] = ()) -> list[float | None]:
    """The mean final score of each draw's chains, over seeds and the grid. None if no chain of it came to its end. A
    baseline of the same settings is one of them.

    Args:
        grid: settings of the grid, by dotted key.
    """
    chains = json.loads((run_path / "chains.json").read_text())["chains"]
    outcome = json.loads((run_path / "outcome.json").read_text())
    scores: list[float | None] = []
    for draw in draws:
        own = [outcome[chain["name"]] for chain in chains if _is_of(chain["values"], draw, grid)]
        finished = [each["score"] for each in own if each["status"] == "finished"]
        scores.append(fmean(finished) if finished else None)
    return scores


def _is_of(values: Mapping[str, Any], draw: Draw, grid: Collection[str]) -> bool:
    return {key: value for key, value in values.items() if key not in grid and key != "seed"} == draw


def _recording(config: Config, draws: Sequence[Draw]) -> Config:
    assert config.search is not None
    search = config.search.model_copy(update={"draws": [dict(draw) for draw in draws]})
    return config.model_copy(update={"search": search})


def _sampled(entries: Mapping[str, _Entry], seed: int, index: int) -> dict[str, Any]:
    """The draw of an index, which depends on no other one."""
    state = np.random.RandomState(derive_seed(seed, "search", index) % 2**32)
    return {key: entry.value(entry.domain.sample(random_state=state)) for key, entry in entries.items()}


def _with_round(config: Config, scores: Sequence[float | None]) -> Config:
    """With the next draws of Optuna's sampler (TPE), which knows the scores of those before."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    assert config.search is not None
    search, entries = config.search, _entries(config.search)
    made = [dict(draw) for draw in search.draws]
    seed = derive_seed(config.seed, "search", len(made)) % 2**32
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.draws_per_round)
    try:
        space = OptunaSearch.convert_search_space({key: entry.domain for key, entry in entries.items()})
        searcher = OptunaSearch(space=space, metric="score", mode="max", sampler=sampler)
        for draw, score in zip(made, scores, strict=True):
            if score is not None:
                searcher.add_evaluated_point({key: entries[key].drawn(value) for key, value in draw.items()}, score)
    except ValueError as error:
        raise ConfigError(
            f"search.space must be one that Optuna can draw from, and hold the draws so far: {first_line(error)}"
        ) from None
    for number in range(min(search.draws_per_round, search.num_draws - len(made))):
        suggested = searcher.suggest(str(number)) or {}
        made.append({key: entries[key].value(drawn) for key, drawn in suggested.items()})
    return _recording(config, made)


def _entries(search: SearchConfig) -> dict[str, _Entry]:
    from ray import tune

    entries = {}
    for key, entry in space_entries(search).items():
        if isinstance(entry, list):
            entries[key] = _Entry(tune.choice(range(len(entry))), entry)
            continue
        try:
            entries[key] = _Entry(getattr(tune, entry.name)(*entry.arguments), None)
        except ValueError as error:
            raise ConfigError(
                f"search.space.{key} must hold what tune.{entry.name} takes, got {list(entry.arguments)}: "
                f"{first_line(error)}"
            ) from None
    return entries
