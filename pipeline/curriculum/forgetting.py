"""Learning and forgetting over a chain of stages, in the terms of the continual-learning literature.

A chain's result is the matrix R of held-out accuracies: R[i, j] on level j after stage i; row 0 is before training.
With t the last stage and s(j) the first stage that trained on level j:

- average accuracy: mean over levels j of R[t, j]. ACC of GEM, arXiv:1706.08840.
- gain: mean over levels j of R[t, j] - R[0, j].
- forgetting: mean over all levels of (best accuracy so far, now included) - R[t, j]. Never negative; what the model
  could do before training counts.
- forgetting of trained levels: mean over levels with s(j) < t of max(R[1..t-1, j]) - R[t, j]. F of Chaudhry et al.,
  arXiv:1801.10112. Negative when a level is better than ever.
- backward transfer: mean over levels with s(j) < t of R[t, j] - R[s(j), j]. BWT of GEM; negative is forgetting.
- forward transfer: mean over levels with s(j) > 1 of R[s(j)-1, j] - R[0, j]. FWT of GEM, with the model before
  training instead of a randomly initialised one.

The best of several noisy accuracies is biased upwards, and more so the more there are. So both kinds of forgetting
are above 0 for a chain that forgets nothing, and small for a chain of one stage. Compare forgetting only between
chains of equal length; average accuracy can be compared between any.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.selection import natural_order

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ChainAnswers:
    """Every held-out answer of one finished chain."""

    setting: str
    seed: int
    levels: tuple[str, ...]
    """Columns of the matrix."""
    stages: tuple[str, ...]
    """Names of the rows after the first, which is before training."""
    trained_levels: tuple[frozenset[str], ...]
    """Levels that each stage trained on, replay aside."""
    correct: tuple[Array, ...]
    """Per level: [1 + num_stages, num_problems], 1 for a correct answer. The same problems in every chain."""

    def __post_init__(self) -> None:
        rows = 1 + len(self.stages)
        shapes = [array.shape for array in self.correct]
        if len(shapes) != len(self.levels) or any(len(s) != 2 or s[0] != rows or s[1] == 0 for s in shapes):
            raise ValueError(f"correct must be [{rows}, num_problems] for each of {self.levels}, got {shapes}")

    def matrix(self) -> Array:
        """[1 + num_stages, num_levels]: accuracy after each stage; row 0 is before training."""
        return np.stack([array.mean(axis=1) for array in self.correct], axis=1)

    def first_trained(self) -> tuple[int, ...]:
        """[num_levels]: the row after the first stage that trained on the level; 0 if none did."""
        rows = range(1, 1 + len(self.stages))
        return tuple(next((row for row in rows if lv in self.trained_levels[row - 1]), 0) for lv in self.levels)


def chain_answers(
    setting: str,
    seed: int,
    stages: Sequence[tuple[str, Iterable[str]]],
    evaluations: Sequence[Sequence[Mapping[str, Any]]],
    measure: str = "tagged",
) -> ChainAnswers:
    """Collect the answers from the rows of a chain's evaluations.

    Args:
        stages: name and trained levels of each stage.
        evaluations: [1 + num_stages], before training first. Each row has level, problem_id and ``measure``.

    Raises:
        ValueError: the evaluations asked different problems.
    """
    tables = [{(row["level"], row["problem_id"]): float(row[measure]) for row in rows} for rows in evaluations]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise ValueError(f"evaluations of {setting}, seed {seed}, must be of the same problems, got different ones")
    levels = sorted({level for level, _ in tables[0]}, key=natural_order)
    problems = {level: sorted(key for key in tables[0] if key[0] == level) for level in levels}
    return ChainAnswers(
        setting=setting,
        seed=seed,
        levels=tuple(levels),
        stages=tuple(name for name, _ in stages),
        trained_levels=tuple(frozenset(trained) for _, trained in stages),
        correct=tuple(np.array([[table[key] for key in problems[level]] for table in tables]) for level in levels),
    )


# Metrics: matrices [..., rows, levels] to [...] --------------------------------------------------


def average_accuracy(matrix: Array, first_trained: Sequence[int]) -> Array:
    return _over_levels(matrix[..., -1, :])


def gain(matrix: Array, first_trained: Sequence[int]) -> Array:
    return _over_levels(matrix[..., -1, :] - matrix[..., 0, :])


def forgetting_by_level(matrix: Array) -> Array:
    """[..., rows, levels]: best accuracy so far minus accuracy now, after every stage."""
    return np.maximum.accumulate(matrix, axis=-2) - matrix


def forgetting(matrix: Array, first_trained: Sequence[int]) -> Array:
    return _over_levels(forgetting_by_level(matrix)[..., -1, :])


def trained_forgetting(matrix: Array, first_trained: Sequence[int]) -> Array:
    earlier = [level for level, row in enumerate(first_trained) if 0 < row < matrix.shape[-2] - 1]
    return _mean([matrix[..., 1:-1, level].max(axis=-1) - matrix[..., -1, level] for level in earlier], matrix)


def backward_transfer(matrix: Array, first_trained: Sequence[int]) -> Array:
    earlier = [(level, row) for level, row in enumerate(first_trained) if 0 < row < matrix.shape[-2] - 1]
    return _mean([matrix[..., -1, level] - matrix[..., row, level] for level, row in earlier], matrix)


def forward_transfer(matrix: Array, first_trained: Sequence[int]) -> Array:
    later = [(level, row) for level, row in enumerate(first_trained) if row > 1]
    return _mean([matrix[..., row - 1, level] - matrix[..., 0, level] for level, row in later], matrix)


def _over_levels(values: Array) -> Array:
    means: Array = values.mean(axis=-1)
    return means


def _mean(terms: Sequence[Array], matrix: Array) -> Array:
    """NaN if there is nothing to average: no level was trained before the last stage, or after the first."""
    return np.mean(terms, axis=0) if terms else np.full(matrix.shape[:-2], np.nan)


METRICS: dict[str, Callable[[Array, Sequence[int]], Array]] = {
    "average_accuracy": average_accuracy,
    "gain": gain,
    "forgetting": forgetting,
    "trained_forgetting": trained_forgetting,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
}
