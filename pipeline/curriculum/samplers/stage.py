"""The sampler of a stage: for each source the one that its settings name, after the share of forgotten problems."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.samplers import Category, SamplerConfig
from pipeline.curriculum.samplers.bandit import Bandit
from pipeline.curriculum.samplers.base import Outcome, Rows, Sampler, StageLength, StageProblems, deal, generator
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
        length: of the stage.
        seed: of the run, and the stage's name.

    Raises:
        ConfigError: the problems lack the levels, types or sources that the settings need.
    """

    def __init__(self, settings: SamplerConfig, problems: StageProblems, length: StageLength, *seed: object) -> None:
        self._settings, self._length, self._seed = settings, length, seed
        self.dynamic = settings.dynamic if settings.name == "dynamic" else None
        self._num_own = len(problems.own)
        self.history = History([*[0.0] * self._num_own, *[rate or 0.0 for rate in problems.replayed_rates]])
        facts = _Facts(settings, problems, length, self.history)
        if settings.source_weights:
            _check_sources(settings.source_weights, problems.own)
        self._source_weights = settings.source_weights or {"": 1.0}
        self._source_of = [head.source if settings.source_weights else "" for head in problems.own]
        self._samplers = {
            name: _BUILD[settings.name](facts, np.flatnonzero([name == own for own in self._source_of]), (*seed, name))
            for name, weight in self._source_weights.items()
            if weight
        }

    def choose(self, step: int, count: int) -> list[int]:
        """The rows of a step: a share of them forgotten problems, the others as the sampler chooses."""
        forgotten = [row for row in self.history.forgotten().tolist() if row < self._num_own]
        rows = self.choose_more(step, count - min(self._num_forgotten(step, count), len(forgotten)))
        new = [row for row in forgotten if row not in rows]  # in a small stage the sampler may have chosen them all
        rows += (new + forgotten)[: count - len(rows)]
        order = generator(*self._seed, step, "order").permutation(count)  # learners take shares that are alike
        return [rows[place] for place in order]

    def replayed(self, step: int, rows: Sequence[int]) -> list[int]:
        """The replayed rows of a step: a share of them forgotten problems, the others from the front of ``rows``."""
        count = self._num_forgotten(step, len(rows), "replayed")
        fallen = [row for row in self.history.forgotten().tolist() if row >= self._num_own][:count]
        kept = [row for row in rows if row not in fallen]
        return [*[*kept, *rows][: len(rows) - len(fallen)], *fallen]  # a small buffer repeats rows within a step

    def _num_forgotten(self, step: int, count: int, *part: str) -> int:
        """Places for forgotten problems among ``count``."""
        share = self._settings.forgetting_frac
        return deal((share, 1 - share), count, generator(*self._seed, step, "forgotten", *part).random())[0]

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
        own = [(each.row, each) for each in outcomes if each.row is not None and each.row < self._num_own]
        for name, sampler in self._samplers.items():
            sampler.observe(step, [each for row, each in own if self._source_of[row] == name])

    def state(self) -> dict[str, Any]:
        samplers = {name: sampler.state() for name, sampler in self._samplers.items()}
        return {"history": self.history.state(), "samplers": samplers}

    def load(self, state: dict[str, Any]) -> None:
        self.history.load(state["history"])
        for name, sampler in self._samplers.items():
            sampler.load(state["samplers"][name])


@dataclass
class _Facts:
    """The arguments that samplers are built from."""

    settings: SamplerConfig
    problems: StageProblems
    length: StageLength
    history: History

    def rows_by(self, attribute: Category, rows: Rows) -> dict[str, list[int]]:
        """Rows by level, type or source, in natural order. A source of problems may have a single category, but not the
        whole stage."""
        if len(categories := {getattr(head, attribute) for head in self.problems.own}) < 2:
            raise ConfigError(
                f"grpo.sampler.name={self.settings.name} must have problems of several {attribute}s, got "
                f"{sorted(map(str, categories))}: it chooses among them. Set data.fields.{attribute}, or another "
                "sampler."
            )
        found: dict[str, list[int]] = {}
        for row in rows.tolist():
            found.setdefault(str(getattr(self.problems.own[row], attribute)), []).append(row)
        return {name: found[name] for name in sorted(found, key=natural_order)}

    def rows_by_level(self, rows: Rows) -> dict[str, list[int]]:
        """Rows by level, easiest first. Problems without a level have no place among others that have one."""
        found = self.rows_by("level", rows)
        order = self.problems.levels or [name for name in found if name != str(None)]
        unplaced = [name for name in found if name not in order]
        if unplaced and len(found) > 1:
            raise ConfigError(
                f"grpo.sampler.name={self.settings.name} must have problems of the levels {', '.join(order)} only, got "
                f"{', '.join(unplaced)}: it takes levels in order. Set curriculum.levels, easiest first, or "
                "problems.levels of the stage."
            )
        return {level: found[level] for level in (*order, *unplaced) if level in found}

    def difficulties(self, rows: Rows) -> npt.NDArray[np.float64]:
        """[num_rows]: the place of each problem's level among theirs, in [0, 1]."""
        rows_of = self.rows_by_level(rows)
        place = {row: index / max(len(rows_of) - 1, 1) for index, own in enumerate(rows_of.values()) for row in own}
        return np.array([place[row] for row in rows.tolist()])


def _check_sources(weights: Mapping[str, float], heads: Sequence[ProblemHead]) -> None:
    sources = {str(head.source) for head in heads}
    if weights.keys() != sources:
        raise ConfigError(
            f"grpo.sampler.source_weights must name all sources of the stage's problems, got {sorted(weights)}: it has "
            f"{sorted(sources)}. A weight of 0 leaves a source out. Set data.fields.source."
        )


def _uniform(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Uniform(rows.tolist(), *seed)


def _pools(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Pools(facts.settings.pools, facts.history, rows, *seed)


def _thompson(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Thompson(facts.settings.thompson, len(facts.problems.own), rows, *seed)


def _target_difficulty(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return TargetDifficulty(facts.settings.target_difficulty, facts.history, facts.difficulties(rows), rows, *seed)


def _bandit(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Bandit(facts.settings.bandit, facts.rows_by(facts.settings.bandit.categories, rows), *seed)


def _schedule(facts: _Facts, rows: Rows, seed: tuple[object, ...]) -> Sampler:
    return Schedule(facts.settings.schedule, facts.rows_by_level(rows), facts.length, *seed)


_BUILD: Mapping[str, Callable[[_Facts, Rows, tuple[object, ...]], Sampler]] = {
    "uniform": _uniform,
    "dynamic": _uniform,  # it drops groups, and does not choose problems
    "pools": _pools,
    "thompson": _thompson,
    "target_difficulty": _target_difficulty,
    "bandit": _bandit,
    "schedule": _schedule,
}
