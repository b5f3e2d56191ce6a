"""Z-scores of reward parts against their history: pure functions on plain numbers.

A z-score of the total would cancel out within a group, because advantages are divided by the group's spread anyway. So
each part is normalised before it is weighted, and parts of different spread count alike.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.config import ZScoreConfig


def z_scores(values: Sequence[float], history: Sequence[float], config: ZScoreConfig) -> list[float]:
    """Values relative to a history, clipped.

    Args:
        values: [num_completions], raw.
        history: raw values before this step. With fewer than ``config.warmup`` of them, the values stay raw.

    Returns:
        (value - mean) / max(std, floor), clipped to [-clip, clip].
    """
    if len(history) < config.warmup:
        return list(values)
    mean, std = float(np.mean(history)), max(float(np.std(history)), config.std_floor)
    return [float(np.clip((value - mean) / std, -config.clip, config.clip)) for value in values]


def extended(history: Sequence[float], values: Sequence[float], config: ZScoreConfig) -> list[float]:
    """The history after a step: the newest ``config.history`` raw values."""
    return [*history, *values][-config.history :]
