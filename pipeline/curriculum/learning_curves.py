"""Tagged held-out accuracy against the tokens that were sampled for it: what settings of a search learned at equal
cost."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from pipeline.curriculum.chain_results import CORRECT_BY, TOKENS, CurriculumResults, StageRecord, evaluated_problems
from pipeline.curriculum.forgetting import Array
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import Row, number

EVALUATED = "eval_answer_accuracy"
"""In the metrics of the steps with an evaluation. It is not the measure that is drawn."""
NUM_POINTS = 50

Curve = Array
"""[2, num_points]: sampled tokens of a stage, rising, and the accuracy after them, by the measure to judge by."""


def learning_curves(run_dir: Path, results: CurriculumResults) -> dict[str, list[Curve]]:
    """By setting, a curve for every seed whose last stage is done and samples tokens, as GRPO stages do.

    A curve runs over all evaluations from the one before that stage to the one after it. Settings without a curve are
    left out.
    """
    curves: dict[str, list[Curve]] = {}
    for chain in results.chains:
        if chain.num_done == len(chain.record.stages):
            points = _points(run_dir, chain.record.stages)
            if len(points) > 1:
                curves.setdefault(chain.record.setting, []).append(np.array(points).T)
    return curves


def mean_curve(curves: Sequence[Curve]) -> Curve | None:
    """The mean of the curves over the range of tokens that all of them cover; None without such a range.

    Between its points a curve is a straight line.
    """
    start, end = max(curve[0][0] for curve in curves), min(curve[0][-1] for curve in curves)
    if start >= end:
        return None
    tokens = np.linspace(start, end, NUM_POINTS)
    return np.stack([tokens, np.mean([np.interp(tokens, *curve) for curve in curves], axis=0)])


def _points(run_dir: Path, stages: Sequence[StageRecord]) -> list[tuple[float, float]]:
    last = stages[-1]
    rows = [row for row in read_metrics(run_dir / last.directory) if number(row, TOKENS) is not None]
    if not rows:
        return []
    before = (stages[-2].directory, stages[-2].name) if len(stages) > 1 else (last.directory, "before")
    points = [
        (0.0, _evaluated(run_dir, *before)),
        *((number(row, TOKENS), _while_training(run_dir, last, row)) for row in rows),
        (number(rows[-1], TOKENS), _evaluated(run_dir, last.directory, last.name)),
    ]
    return [(tokens, accuracy) for tokens, accuracy in points if tokens is not None and accuracy is not None]


def _while_training(run_dir: Path, stage: StageRecord, row: Row) -> float | None:
    """Accuracy after a step of the stage; None if it was not evaluated then."""
    if number(row, EVALUATED) is None:
        return None
    return _evaluated(run_dir, stage.directory, f"{stage.name}_step_{row['step']:06d}")


def _evaluated(run_dir: Path, directory: str, name: str) -> float | None:
    """Accuracy of an evaluation; None if there was none."""
    rows = evaluated_problems(run_dir / directory, name)
    return fmean(row[CORRECT_BY[0]] for row in rows) if rows else None
