"""The sampler of a stage: for each source the one that its settings name, after the share of forgotten problems."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.samplers import Category, SamplerConfig
from pipeline.curriculum.samplers.bandit import Bandit
from pipeline.curriculum.samplers.base import Outcome, Rows, Sampler, StageLength, deal, generator
from pipeline.curriculum.samplers.history import History
from pipeline.curriculum.samplers.pools import Pools
from pipeline.curriculum.samplers.schedule import Schedule
from pipeline.curriculum.samplers.target_difficulty import TargetDifficulty
from pipeline.curriculum.samplers.thompson import Thompson
from pipeline.curriculum.samplers.uniform import Uniform
from pipeline.data.selection import natural_order
from pipeline.errors import ConfigError
from pipeline.types import ProblemHead


class StageSampler:
    """Chooses the problems of a stage, and remembers what became of them.

    Args:
        heads: of the stage's own problems, in their order.
        length: of the stage.
        seed: of the run, and the stage's name.

    Raises:
        ConfigError: the problems lack the levels, types or sources that the settings need.
    """

    def __init__(
        self, settings: SamplerConfig, heads: Sequence[ProblemHead], length: StageLength, *seed: object
    ) -> None:
        self._settings, self._length, self._seed = settings, length, seed
        self.history = History(len(heads))
        facts = _Facts(settings, heads, length, self.history)
        if settings.source_weights:
            _check_sources(settings.source_weights, heads)
        self._source_weights = settings.source_weights or {"": 1.0}
        self._source_of = [head.source if settings.source_weights else "" for head in heads]
        self._samplers = {
            name: _BUILD[settings.name](facts, np.flatnonzero([name == own for own in self._source_of]), (*seed, name))
            for name, weight in self._source_weights.items()
            if weight
        }

    def choose(self, step: int, count: int) -> list[int]:
        """The rows of a step: a share of them forgotten problems, the others as the sampler chooses."""
        offset = generator(*self._seed, step, "forgotten").random()
        share = self._settings.forgetting_frac
        num_forgotten = deal((share, 1 - share), count, offset)[0] if share else 0
        forgotten = self.history.forgotten().tolist()
        rows = self.choose_more(step, count - min(num_forgotten, len(forgotten)))
        new = [row for row in forgotten if row not in rows]  # in a small stage the sampler may have chosen them all
        rows += (new + forgotten)[: count - len(rows)]
        order = generator(*self._seed, step, "order").permutation(count)  # learners take shares that are alike
        return [rows[place] for place in order]

    def choose_more(self, step: int, count: int) -> list[int]:
        """Rows to replace groups that were dropped."""
        weights = [self._source_weights[name] for name in self._samplers]
        counts = deal(weights, count, generator(*self._seed, step, "sources").random())
        samplers = zip(self._samplers.values(), counts, strict=True)
        rows = [row for sampler, own in samplers for row in sampler.choose(step, own)]
        # Sources take turns at random: of groups that come when the batch is full, none is always of the last source.
        return [rows[place] for place in generator(*self._seed, step, "more").permutation(count)]

    def observe(self, step: int, outcomes: Sequence[Outcome]) -> None:
        self._length.sampled_tokens += sum(each.num_tokens for each in outcomes)
        self.history.observe(step, outcomes)
        for name, sampler in self._samplers.items():
            own = [each for each in outcomes if each.row is not None and self._source_of[each.row] == name]
            sampler.observe(step, own)

    def state(self) -> dict[str, Any]:
        samplers = {name: sampler.state() for name, sampler in self._samplers.items()}
        return {
            "history": self.history.state(),
            "samplers": samplers,
            "sampled_tokens": self._length.sampled_tokens,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.history.load(state["history"])
        self._length.sampled_tokens = state.get("sampled_tokens", 0)  # a version without it went by steps alone
        for name, sampler in self._samplers.items():
            sampler.load(state["samplers"][name])


@dataclass
class _Facts:
    """The arguments that samplers are built from."""

    settings: SamplerConfig
    heads: Sequence[ProblemHead]
    length: StageLength
    history: History
    _difficulties: np.ndarray | None = field(default=None, init=False)

    def rows_by(self, attribute: Category, rows: Sequence[int] | Rows) -> dict[str, list[int]]:
        """Rows by level, type or source, in natural order."""
        found: dict[str, list[int]] = {}
        for row in rows:
            found.setdefault(str(getattr(self.heads[row], attribute)), []).append(int(row))
        if len(found) < 2:
            raise ConfigError(
                f"grpo.sampler.name={self.settings.name} must have problems of several {attribute}s, got "
                f"{sorted(found)}: it chooses among them. Set data.fields.{attribute}, or another sampler."
            )
        return {name: found[name] for name in sorted(found, key=natural_order)}

    def difficulties(self) -> np.ndarray:
        """[num_problems]: the place of each problem's level among all of them, in [0, 1]."""
        if self._difficulties is None:
            rows_of = self.rows_by("level", range(len(self.heads)))
            self._difficulties = np.zeros(len(self.heads))
            for place, rows in enumerate(rows_of.values()):
                self._difficulties[rows] = place / (len(rows_of) - 1)
        return self._difficulties


def _check_sources(weights: Mapping[str, float], heads: Sequence[ProblemHead]) -> None:
    sources = {str(head.source) for head in heads}
    if unknown := sorted(weights.keys() - sources):
        raise ConfigError(
            f"grpo.sampler.source_weights must name sources of the stage's problems, got {unknown}: it has "
            f"{sorted(sources)}. Set data.fields.source."
        )


def _uniform(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Uniform(rows.tolist(), *seed)


def _pools(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Pools(facts.settings.pools, facts.history, rows, *seed)


def _thompson(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Thompson(facts.settings.thompson, len(facts.heads), rows, *seed)


def _target_difficulty(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return TargetDifficulty(facts.settings.target_difficulty, facts.history, facts.difficulties(), rows, *seed)


def _bandit(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Bandit(facts.settings.bandit, facts.rows_by(facts.settings.bandit.categories, rows), *seed)


def _schedule(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Schedule(facts.settings.schedule, facts.rows_by("level", rows), facts.length, *seed)


_BUILD: Mapping[str, Callable[[_Facts, Rows, tuple[object, ...]], Sampler]] = {
    "uniform": _uniform,
    "dynamic": _uniform,  # it drops groups, and does not choose problems
    "pools": _pools,
    "thompson": _thompson,
    "target_difficulty": _target_difficulty,
    "bandit": _bandit,
    "schedule": _schedule,
}
