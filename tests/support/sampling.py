"""Problems with known solve rates, for samplers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config.samplers import SamplerConfig
from pipeline.curriculum.samplers.base import Outcome, StageLength, StageProblems
from pipeline.curriculum.samplers.stage import StageSampler
from pipeline.types import ProblemHead

GROUP = 8


def heads(*levels: int, sources: Sequence[str] = ("a",)) -> list[ProblemHead]:
    """So many problems of level 1, of level 2 and so on. Sources take turns."""
    names = [str(level) for level, count in enumerate(levels, 1) for _ in range(count)]
    return [
        ProblemHead(row, f"p{row}", level, None, sources[row % len(sources)], True) for row, level in enumerate(names)
    ]


def sampler(
    name: str,
    problems: Sequence[ProblemHead],
    num_steps: int = 100,
    seed: int = 0,
    max_sampled_tokens: int | None = None,
    replayed_rates: Sequence[float | None] = (),
    levels: Sequence[str] | None = None,
    **settings: Any,
) -> Any:
    config = SamplerConfig.model_validate({"name": name, **settings})
    return StageSampler(
        config, StageProblems(problems, replayed_rates, levels), StageLength(num_steps, max_sampled_tokens), seed, "rl"
    )


def result(row: int, num_correct: int, size: int = GROUP) -> Outcome:
    """The outcome of a group with rewards 1 and 0, worked out from the share p of correct completions: advantages are
    (1 - p) / s and -p / s with s^2 = p (1 - p), so that their mean absolute value is 2 s."""
    rate = num_correct / size
    return Outcome(row, size, rate, 2 * (rate * (1 - rate)) ** 0.5, 0 < rate < 1, num_tokens=10 * size)


def asked(row: int, rate: float, *seed: int) -> Outcome:
    """The outcome of a group of a problem with a known solve rate."""
    random = np.random.default_rng([*seed, row])
    return result(row, int((random.random(GROUP) < rate).sum()))
