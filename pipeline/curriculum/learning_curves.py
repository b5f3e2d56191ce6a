"""Held-out accuracy against the tokens that were sampled for it: what settings of a search learned at equal cost."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.curriculum.chain_results import CurriculumResults
from pipeline.curriculum.forgetting import Array
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import number

TOKENS, ACCURACY = "sampled_tokens_total", "eval_answer_accuracy"
NUM_POINTS = 50

Curve = Array
"""[2, num_points]: sampled tokens of a stage, rising, and the accuracy after them."""


def learning_curves(run_dir: Path, results: CurriculumResults) -> dict[str, list[Curve]]:
    """By setting, a curve for every seed whose last stage was evaluated twice at least while it trained. Only GRPO
    stages sample tokens. Settings without a curve are left out."""
    curves: dict[str, list[Curve]] = {}
    for chain in results.chains:
        if chain.num_done == len(chain.record.stages):
            points = _points(run_dir / chain.record.stages[-1].directory)
            if len(points) > 1:
                curves.setdefault(chain.record.setting, []).append(np.array(points).T)
    return curves


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Their mean over the tokens that all of them have; between its points a curve is a straight line."""
    start, end = max(curve[0][0] for curve in curves), min(curve[0][-1] for curve in curves)
    tokens = np.linspace(start, end, NUM_POINTS)
    return np.stack([tokens, np.mean([np.interp(tokens, *curve) for curve in curves], axis=0)])


def _points(directory: Path) -> list[tuple[float, float]]:
    rows = ((number(row, TOKENS), number(row, ACCURACY)) for row in read_metrics(directory))
    return [(tokens, accuracy) for tokens, accuracy in rows if tokens is not None and accuracy is not None]
