"""Colours, style and the parts that all plots share: curves, titles, step axes and stage boundaries."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.runs.records import Row, number

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#2b6cb0", "#dd7a1f", "#2f8f5b", "#7a5ab5", "#c0392b", "#a3adb8"
BROWN = "#7d5a3c"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY, BROWN)
INK, SOFT, FAINT = "#2d3640", "#8a949e", "#e3e7eb"
STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "text.parse_math": False,  # names come from data: a $ in one does not start a formula
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-6, 9),  # outside of 10^-6 to 10^9 a number has an exponent
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
}


MIN_SPAN = 1e-4
"""Relative to an axis: differences below it are noise of rounding."""


def save(figure: Figure, path: Path, dpi: int) -> Path:
    for axes in figure.axes:
        for low, high, widen in ((*axes.get_xlim(), axes.set_xlim), (*axes.get_ylim(), axes.set_ylim)):
            if abs(high - low) < MIN_SPAN:
                widen((low + high - MIN_SPAN) / 2, (low + high + MIN_SPAN) / 2)
    figure.savefig(path, dpi=dpi)
    return path


def curve(axes: Axes, rows: list[Row], key: str, color: str, label: str | None = None) -> bool:
    """Raw points and, stage by stage, a smoothed line. Returns False if no row has the key."""
    by_stage: dict[Any, list[tuple[int, float]]] = {}
    for row in rows:
        if (value := number(row, key)) is not None:
            by_stage.setdefault(row.get("stage"), []).append((row["step"], value))
    for points in by_stage.values():
        steps, values = np.array(points).T
        size, alpha = (10, 1.0) if len(values) == 1 else (5, 0.35) if len(values) < 300 else (3, 0.15)
        axes.plot(steps, values, ".", ms=size, color=color, alpha=alpha, mew=0)
        axes.plot(steps, smooth(values), color=color, lw=1.8, label=label)
        label = None
    return bool(by_stage)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average over about a fifth of the curve, with a straight line fitted to each end."""
    half = min(len(values) // 10, 100)
    if not half:
        return values
    x = np.arange(2 * half + 1)
    inner = np.convolve(values, np.full(len(x), 1 / len(x)), "valid")
    head, tail = (np.polyval(np.polyfit(x, part, 1), x) for part in (values[: len(x)], values[-len(x) :]))
    return np.concatenate([head[:half], inner, tail[-half:]])


def finish(axes: Axes, title: str, rows: list[Row], *, empty: bool, legend: bool = False) -> None:
    """Add the title, step axis and stage boundaries, or a note that this run has no data for the plot."""
    axes.set_title(title, pad=20 if len({row.get("stage") for row in rows}) <= 3 else 36)
    if empty:
        axes.text(0.5, 0.5, "no data in this run", ha="center", va="center", color=SOFT, transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    if legend:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.19), ncols=3, handlelength=1.3, columnspacing=1.2)
    if rows:
        axes.set_xlabel("step")
        axes.set_xlim(rows[0]["step"] - 0.75, rows[-1]["step"] + 0.75)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
        _mark_stages(axes, rows)


def _mark_stages(axes: Axes, rows: list[Row]) -> None:
    starts = [row for before, row in pairwise([{}, *rows]) if row.get("stage") != before.get("stage")]
    for index, row in enumerate(starts):
        x, angle = row["step"] - 0.5, 0 if len(starts) <= 3 else 25
        if index:
            axes.axvline(x, color=SOFT, lw=0.8, ls=(0, (4, 3)))
        name = axes.text(x, 1.02, str(row.get("stage", "")), fontsize=8.5, color="#66717c", rotation=angle)
        name.set(transform=axes.get_xaxis_transform(), rotation_mode="anchor")
