"""Held-out answers of chains, made up from the columns of their matrix."""

import numpy as np

from pipeline.curriculum.forgetting import ChainAnswers

FORGETS = [[1, 6, 4, 3], [0, 2, 7, 5], [1, 1, 3, 8]]
"""Three stages on three levels. In tenths:

     level     1  2  3
    before     1  0  1
    after 1    6  2  1
    after 2    4  7  3
    after 3    3  5  8
"""


def answers(tenths: list[int], num_problems: int = 10) -> np.ndarray:
    """[rows, num_problems]: in row i the first ``tenths[i]`` tenths of the answers are right."""
    return np.array([[float(index < t * num_problems // 10) for index in range(num_problems)] for t in tenths])


def chain(columns: list[list[int]], setting: str = "s", seed: int = 0, trained=None, num_problems=10) -> ChainAnswers:
    """Columns of the matrix, in tenths; by default stage i trains on level i."""
    levels = tuple(str(index + 1) for index in range(len(columns)))
    num_stages = len(columns[0]) - 1
    trained = trained or [{level} for level in levels[:num_stages]]
    return ChainAnswers(
        setting=setting,
        seed=seed,
        levels=levels,
        stages=tuple(f"stage{index}" for index in range(num_stages)),
        trained_levels=tuple(frozenset(level) for level in trained),
        correct=tuple(answers(column, num_problems) for column in columns),
    )
