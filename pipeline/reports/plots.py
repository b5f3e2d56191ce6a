"""Draws a run's metrics and evaluations as PNG files, readable 900 pixels wide."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.reports.statistics import wilson_interval
from pipeline.runs.metrics_log import Row, number, read_evaluations, read_metrics

PHASES = ("rollout_s", "reward_s", "learner_s", "weight_sync_s", "other_s")
"""What a step's seconds are made of. Checkpoints come on top."""

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#2b6cb0", "#dd7a1f", "#2f8f5b", "#7a5ab5", "#c0392b", "#a3adb8"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
INK, SOFT, FAINT = "#2d3640", "#8a949e", "#e3e7eb"
STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "text.parse_math": False,  # names come from data: a $ in a level is no formula
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
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
}


def draw_all(run_dir: str | Path, plots_dir: str | Path) -> list[Path]:
    """Draw every plot. One that the run has no data for says so. Returns the files, dashboard first."""
    rows, evaluations = read_metrics(run_dir), read_evaluations(run_dir)
    plots_dir = Path(plots_dir)
    plots_dir.mkdir(parents=True, exist_ok=True)
    single: dict[str, Callable[[Axes, list[Row]], None]] = {
        "loss": _draw_loss,
        "reward": _draw_reward,
        "output_length": _draw_length,
        "loss_vs_reward": _draw_loss_vs_reward,
    }
    with matplotlib.rc_context(STYLE):
        dashboard = Figure(figsize=(13, 7.6))
        _draw_dashboard(dashboard, rows, evaluations)
        paths = [save(dashboard, plots_dir / "training_progress.png", dpi=140)]
        for name, draw in single.items():
            figure = Figure(figsize=(8.5, 4.4))
            draw(figure.subplots(), rows)
            paths.append(save(figure, plots_dir / f"{name}.png", dpi=160))
    return paths


def draw_audit(steps: list[Row], path: Path) -> Path:
    """What pipeline.audit found, over the steps: where scorers disagree, tricks, and the completion length."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.4))
        shares, length = figure.subplots(1, 2)
        _curve(shares, steps, "disagreement_frac", RED, "scorers disagree")
        _curve(shares, steps, "value_frac", PURPLE, "another number")
        _curve(shares, steps, "trick_frac", ORANGE, "any trick")
        shares.set_ylabel("share of completions")
        shares.set_ylim(bottom=0)
        shares.yaxis.set_major_formatter(PercentFormatter(1))
        _finish(shares, "Disagreements and tricks", steps, empty=False, legend=True)
        _curve(length, steps, "length_mean", BLUE)
        length.set_ylabel("mean completion length (characters)")
        length.set_ylim(0, 1.1 * max(step["length_mean"] for step in steps) or 1)
        _finish(length, "Length of stored completions", steps, empty=False)
        return save(figure, path, dpi=140)


def _draw_dashboard(figure: Figure, rows: list[Row], evaluations: list[Row]) -> None:
    (loss, reward, accuracy), (length, phases, speed) = figure.subplots(2, 3)
    _draw_loss(loss, rows)
    _draw_reward(reward, rows)
    _draw_accuracy(accuracy, evaluations)
    _draw_length(length, rows)
    _draw_phases(phases, rows)
    _draw_speed(speed, rows)


def _draw_loss(axes: Axes, rows: list[Row]) -> None:
    """SFT on the left scale, GRPO on the right one: they differ by orders of magnitude."""
    by_kind = {kind: [row for row in rows if row.get("kind") == kind] for kind in ("sft", "grpo")}
    present = [kind for kind, of_kind in by_kind.items() if any(number(row, "loss") is not None for row in of_kind)]
    for kind in present:
        scale = axes if kind == present[0] else axes.twinx()
        color = BLUE if kind == "sft" else ORANGE
        held_out = _curve(scale, by_kind[kind], "eval_loss", RED, "held-out problems")
        _curve(scale, by_kind[kind], "loss", color, "training" if held_out else None)
        if held_out:
            scale.legend()
        scale.set_ylabel("SFT loss (nats per token)" if kind == "sft" else "GRPO loss", color=color)
        scale.tick_params(axis="y", colors=color)
        if scale is not axes:
            scale.grid(False)
    _finish(axes, "Loss", rows, empty=not present)


def _draw_reward(axes: Axes, rows: list[Row]) -> None:
    """Or, where nothing is rewarded, the accuracies of fine-tuning."""
    if not any(number(row, "reward_mean") is not None for row in rows):
        return _draw_accuracies(axes, rows)
    parts = sorted({key for row in rows for key in row if key.startswith("reward/")})
    curves = {"reward_mean": "combined"} | {key: key.removeprefix("reward/") for key in parts}
    drawn = [_curve(axes, rows, key, COLORS[i % len(COLORS)], label) for i, (key, label) in enumerate(curves.items())]
    axes.set_ylabel("mean reward")
    _finish(axes, "Reward", rows, empty=not any(drawn), legend=True)


def _draw_accuracies(axes: Axes, rows: list[Row]) -> None:
    curves = {
        "token_accuracy": ("tokens, training", BLUE),
        "eval_token_accuracy": ("tokens, held-out", RED),
        "eval_answer_accuracy": ("answers, held-out", GREEN),
    }
    drawn = [_curve(axes, rows, key, color, label) for key, (label, color) in curves.items()]
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _finish(axes, "Accuracy while training", rows, empty=not any(drawn), legend=True)


def _draw_length(axes: Axes, rows: list[Row]) -> None:
    keys = [f"completion_length_{name}" for name in ("min", "mean", "max")]
    rows_with = [row for row in rows if all(number(row, key) is not None for key in keys)]
    if rows_with:
        low, _, high = ([row[key] for row in rows_with] for key in keys)
        steps = [row["step"] for row in rows_with]
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.13, lw=1 if len(steps) == 1 else 0, label="min to max")
    drawn = _curve(axes, rows, keys[1], BLUE, "mean")
    axes.set_ylabel("completion length (tokens)")
    axes.set_ylim(bottom=0)
    _finish(axes, "Output length", rows, empty=not drawn, legend=True)


def _draw_loss_vs_reward(axes: Axes, rows: list[Row]) -> None:
    points = [row for row in rows if number(row, "loss") is not None and number(row, "reward_mean") is not None]
    if points:
        loss, reward, steps = (np.array([row[key] for row in points]) for key in ("loss", "reward_mean", "step"))
        dots = axes.scatter(loss, reward, c=steps, cmap="viridis", s=34, alpha=0.85, lw=0)
        for index, name in ((0, "first"), (-1, "last")):
            axes.annotate(name, (loss[index], reward[index]), (6, 6), textcoords="offset points", fontsize=9)
        color_bar = axes.figure.colorbar(dots, ax=axes, label="step", ticks=MaxNLocator(6, integer=True))
        color_bar.outline.set_visible(False)
    axes.set_xlabel("GRPO loss")
    axes.set_ylabel("mean reward")
    axes.margins(0.08)
    _finish(axes, "Loss against reward, one dot per step", [], empty=not points)


def _draw_accuracy(axes: Axes, evaluations: list[Row]) -> None:
    """A bar per evaluation, grouped by level: tagged accuracy with its interval; a dot for last-number."""
    levels = list(dict.fromkeys(level for evaluation in evaluations for level in evaluation["levels"]))
    width = 0.8 / max(len(evaluations), 1)
    trained = [evaluation["name"] for evaluation in evaluations if evaluation["name"] != "before"]
    blues = dict(zip(trained, matplotlib.colormaps["Blues"](np.linspace(0.45, 0.95, len(trained))), strict=True))
    for index, evaluation in enumerate(evaluations):
        found = [(x, evaluation["levels"][level]) for x, level in enumerate(levels) if level in evaluation["levels"]]
        xs = [x + (index - (len(evaluations) - 1) / 2) * width for x, _ in found]
        tagged = [result["accuracy_tagged"] for _, result in found]
        spans = [wilson_interval(result["accuracy_tagged"], result["num_problems"]) for _, result in found]
        errors = np.abs(np.transpose(spans) - tagged) if found else None
        error_style = {"ecolor": INK, "elinewidth": 0.8, "alpha": 0.55}
        color = blues.get(evaluation["name"], GREY)
        axes.bar(xs, tagged, width * 0.92, color=color, label=evaluation["name"], yerr=errors, error_kw=error_style)
        last = [result["accuracy_last_number"] for _, result in found]
        label = "last number" if evaluation is evaluations[-1] else None
        axes.plot(xs, last, "o", ms=4, mfc="white", mec=INK, mew=0.9, ls="none", label=label)
    axes.set_xticks(range(len(levels)), levels)
    if len(levels) > 5:
        axes.tick_params(axis="x", rotation=30)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("held-out accuracy, tagged")
    _finish(axes, "Accuracy per level", [], empty=not levels, legend=True)
    axes.set_xlabel("level")


def _draw_phases(axes: Axes, rows: list[Row]) -> None:
    steps = [row["step"] for row in rows]
    edges = [step - 0.5 for step in steps] + [step + 0.5 for step in steps[-1:]]
    base, drawn = np.zeros(len(rows)), False
    for key, color in zip(PHASES, (BLUE, GREEN, ORANGE, PURPLE, GREY), strict=True):
        seconds = np.array([number(row, key) or 0.0 for row in rows])
        if seconds.any():
            label = key.removesuffix("_s").replace("_", " ")
            axes.stairs(base + seconds, edges, baseline=base, fill=True, color=color, lw=0, label=label)
            base, drawn = base + seconds, True
    axes.set_ylabel("seconds per step")
    _finish(axes, "Time by phase", rows, empty=not drawn, legend=True)


def _draw_speed(axes: Axes, rows: list[Row]) -> None:
    keys = {"rollout_tokens_per_s": ("rollout", BLUE), "learner_tokens_per_s": ("learner", ORANGE)}
    drawn = [_curve(axes, rows, key, color, label) for key, (label, color) in keys.items()]
    axes.set_ylabel("tokens per second")
    axes.set_ylim(bottom=0)
    _finish(axes, "Throughput", rows, empty=not any(drawn), legend=True)


def _curve(axes: Axes, rows: list[Row], key: str, color: str, label: str | None = None) -> bool:
    """Raw points and, stage by stage, a smoothed line. False when no row has the key."""
    by_stage: dict[Any, list[tuple[int, float]]] = {}
    for row in rows:
        if (value := number(row, key)) is not None:
            by_stage.setdefault(row.get("stage"), []).append((row["step"], value))
    for points in by_stage.values():
        steps, values = np.array(points).T
        size, alpha = (10, 1.0) if len(values) == 1 else (5, 0.35) if len(values) < 300 else (3, 0.15)
        axes.plot(steps, values, ".", ms=size, color=color, alpha=alpha, mew=0)
        axes.plot(steps, _smooth(values), color=color, lw=1.8, label=label)
        label = None
    return bool(by_stage)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average over about a fifth of the curve; a straight line fits its two ends."""
    half = min(len(values) // 10, 100)
    if not half:
        return values
    x = np.arange(2 * half + 1)
    inner = np.convolve(values, np.full(len(x), 1 / len(x)), "valid")
    head, tail = (np.polyval(np.polyfit(x, part, 1), x) for part in (values[: len(x)], values[-len(x) :]))
    return np.concatenate([head[:half], inner, tail[-half:]])


def _finish(axes: Axes, title: str, rows: list[Row], *, empty: bool, legend: bool = False) -> None:
    """Title, step axis and stage boundaries; or the note that there is nothing to draw."""
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


def save(figure: Figure, path: Path, dpi: int) -> Path:
    figure.savefig(path, dpi=dpi)
    return path
