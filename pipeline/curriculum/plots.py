"""Plots of learning and forgetting: matrices of chains, metrics against the replay ratio, accuracy against tokens."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, PercentFormatter

from pipeline.curriculum.estimates import Estimate
from pipeline.curriculum.forgetting import Array, ChainAnswers
from pipeline.curriculum.learning_curves import Curve, mean_curve
from pipeline.reports.drawing import COLORS, INK, SOFT, STYLE, save
from pipeline.reports.page import visible

Estimates = Mapping[str, Estimate | None]


def draw_matrices(panels: Mapping[str, Sequence[ChainAnswers]], path: Path) -> Path:
    """One heat map of accuracy (stage x level) for each title: the mean of its chains.

    All share a colour scale, and their levels are in the order in which the longest chain trained on them.
    """
    order = level_order(max((chains[0] for chains in panels.values()), key=lambda chain: len(chain.stages)))
    columns = 1 if len(panels) == 1 else 2
    rows = math.ceil(len(panels) / columns)
    most = max(len(chains[0].stages) for chains in panels.values()) + 1
    matrices = {title: np.mean([chain.matrix() for chain in chains], axis=0) for title, chains in panels.items()}
    brightest = max(0.1, *(float(np.nanmax(matrix)) for matrix in matrices.values()))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5 if columns == 1 else 12, rows * (1.5 + 0.42 * most)))
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, matrix) in zip(grid, matrices.items(), strict=False):
            _draw_matrix(axes, matrix, panels[title][0], order, brightest)
            axes.set_title(_label(title, 56))
        return save(figure, path, dpi=140)


def draw_replay_ratio(
    curves: Mapping[str, Mapping[float, Estimates]],
    baselines: Mapping[str, tuple[str, Estimate]],
    metrics: Sequence[str],
    path: Path,
) -> Path:
    """A panel per metric, over the replay ratio: each curve's mean with its interval, and a dot per seed.

    Args:
        curves: label -> replay ratio -> the setting's estimates.
        baselines: metric -> name and estimate to draw as a band.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.6))
        for axes, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
            for (label, points), color in zip(curves.items(), _cycle(len(curves)), strict=True):
                _draw_curve(
                    axes, {x: estimate for x in sorted(points) if (estimate := points[x][metric])}, label, color
                )
            if metric in baselines:
                name, estimate = baselines[metric]
                axes.axhspan(*estimate.interval, color=SOFT, alpha=0.18, lw=0)
                axes.axhline(estimate.mean, color=SOFT, lw=1.5, ls=(0, (5, 3)), label=f"{_label(name, 32)} (baseline)")
            axes.set_title(f"{metric.replace('_', ' ').capitalize()}")
            axes.set_xlabel("replay ratio")
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.margins(x=0.08)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
        return save(figure, path, dpi=150)


def draw_learning_curves(curves: Mapping[str, Sequence[Curve]], path: Path) -> Path:
    """Tagged held-out accuracy against sampled tokens: a thick line for the mean of a setting, a thin one per seed."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 5.2))
        axes = figure.subplots()
        for (setting, of_setting), color in zip(curves.items(), _cycle(len(curves)), strict=True):
            for curve in of_setting:
                axes.plot(*curve, color=color, lw=0.8, alpha=0.45)
            mean = mean_curve(of_setting)
            axes.plot(*([[], []] if mean is None else mean), color=color, lw=2.2, label=_label(setting, 40))
        axes.set_title("Tagged held-out accuracy against sampled tokens")
        axes.set_xlabel("sampled tokens, those of dropped groups included")
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
        return save(figure, path, dpi=150)


def level_order(chain: ChainAnswers) -> list[int]:
    """Columns of the matrix in the order in which the chain first trained on their levels."""
    first = chain.first_trained()
    return sorted(range(len(first)), key=lambda index: first[index] or math.inf)


def _draw_matrix(axes: Axes, matrix: Array, chain: ChainAnswers, order: Sequence[int], brightest: float) -> None:
    """Numbers are percent. A frame: the stage trained on this level."""
    matrix = matrix[:, order]
    names = [chain.levels[index] for index in order]
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=brightest, aspect="auto")
    for row, column in np.ndindex(*matrix.shape):
        value = matrix[row, column]
        cell = "–" if math.isnan(value) else f"{100 * value:.0f}"
        color = "white" if value > 0.55 * brightest else INK
        axes.text(column, row, cell, ha="center", va="center", color=color, fontsize=10)
    for row, trained in enumerate(chain.trained_levels, start=1):
        for column in (index for index, level in enumerate(names) if level in trained):
            axes.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, ec=COLORS[1], lw=1.6))
    levels = [_label(level, 18) for level in names]
    crowded = sum(map(len, levels)) > 45
    axes.set_xticks(range(len(levels)), levels, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    axes.set_yticks(range(len(matrix)), ["before", *(_label(stage, 22) for stage in chain.stages)])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _draw_curve(axes: Axes, points: Mapping[float, Estimate], label: str, color: str) -> None:
    if not points:
        return
    ratios, means = list(points), [estimate.mean for estimate in points.values()]
    # A very narrow bootstrap interval may exclude its own mean: no bar is drawn on that side.
    errors = np.transpose([(max(e.mean - e.interval[0], 0), max(e.interval[1] - e.mean, 0)) for e in points.values()])
    axes.errorbar(ratios, means, errors, color=color, lw=1.8, elinewidth=1.1, capsize=4, label=_label(label, 32))
    seeds = [(ratio, value) for ratio, estimate in points.items() for value in estimate.by_seed.values()]
    axes.plot(*np.transpose(seeds), "o", ms=4.5, mfc="white", mec=color, mew=1.1, ls="none")


def _cycle(count: int) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(count)]


def _label(name: str, most: int) -> str:
    shown = visible(name).replace("\n", " ")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
