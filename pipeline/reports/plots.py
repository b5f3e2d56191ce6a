"""Draws a run's metrics and evaluations as PNG files, readable 900 pixels wide."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.reports.drawing import BLUE, COLORS, GREEN, GREY, INK, ORANGE, PURPLE, RED, STYLE, curve, finish, save
from pipeline.reports.statistics import wilson_interval
from pipeline.runs.clock import PHASES
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import Row, number, read_evaluations

STEP_PARTS = (*PHASES["grpo"], "other")
"""Parts that a step's seconds are drawn in. An SFT step has some of them. Checkpoints are not part of a step."""

_LOSSES = {
    "sft": "SFT loss (nats per token)",
    "memory_sft": "fusion loss (nats per token)",
    "router": "router loss (nats per question)",
    "grpo": "GRPO loss",
}


def draw_all(run_dir: str | Path, plots_dir: str | Path) -> list[Path]:
    """Draw every plot; one without data in this run says so. Returns the files, dashboard first."""
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


def _draw_dashboard(figure: Figure, rows: list[Row], evaluations: list[Row]) -> None:
    (loss, reward, accuracy), (length, phases, speed) = figure.subplots(2, 3)
    _draw_loss(loss, rows)
    _draw_reward(reward, rows)
    _draw_accuracy(accuracy, evaluations)
    _draw_length(length, rows)
    _draw_phases(phases, rows)
    _draw_speed(speed, rows)


def _draw_loss(axes: Axes, rows: list[Row]) -> None:
    """The first kind of stage on the left axis, another on the right one: losses differ by orders of magnitude."""
    by_kind = {kind: [row for row in rows if row.get("kind") == kind] for kind in _LOSSES}
    present = [kind for kind, of_kind in by_kind.items() if any(number(row, "loss") is not None for row in of_kind)]
    for kind in present:
        scale = axes if kind == present[0] else axes.twinx()
        color = BLUE if kind == present[0] and kind != "grpo" else ORANGE
        held_out = curve(scale, by_kind[kind], "eval_loss", RED, "held-out problems")
        curve(scale, by_kind[kind], "loss", color, "training" if held_out else None)
        if held_out:
            scale.legend()
        scale.set_ylabel(_LOSSES[kind], color=color)
        scale.tick_params(axis="y", colors=color)
        if scale is not axes:
            scale.grid(False)
    finish(axes, "Loss", rows, empty=not present)


def _draw_reward(axes: Axes, rows: list[Row]) -> None:
    """Mean reward and its parts; for a run without rewards, the accuracies of fine-tuning."""
    if not any(number(row, "reward_mean") is not None for row in rows):
        return _draw_accuracies(axes, rows)
    parts = sorted({key for row in rows for key in row if key.startswith("reward/")})
    curves = {"reward_mean": "combined"} | {key: key.removeprefix("reward/") for key in parts}
    drawn = [curve(axes, rows, key, COLORS[i % len(COLORS)], label) for i, (key, label) in enumerate(curves.items())]
    axes.set_ylabel("mean reward")
    finish(axes, "Reward", rows, empty=not any(drawn), legend=True)


def _draw_accuracies(axes: Axes, rows: list[Row]) -> None:
    curves = {
        "token_accuracy": ("tokens, training", BLUE),
        "eval_token_accuracy": ("tokens, held-out", RED),
        "eval_answer_accuracy": ("answers, held-out", GREEN),
    }
    drawn = [curve(axes, rows, key, color, label) for key, (label, color) in curves.items()]
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    finish(axes, "Accuracy while training", rows, empty=not any(drawn), legend=True)


def _draw_length(axes: Axes, rows: list[Row]) -> None:
    keys = [f"completion_length_{name}" for name in ("min", "mean", "max")]
    rows_with = [row for row in rows if all(number(row, key) is not None for key in keys)]
    if rows_with:
        low, _, high = ([row[key] for row in rows_with] for key in keys)
        steps = [row["step"] for row in rows_with]
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.13, lw=1 if len(steps) == 1 else 0, label="min to max")
    drawn = curve(axes, rows, keys[1], BLUE, "mean")
    axes.set_ylabel("completion length (tokens)")
    axes.set_ylim(bottom=0)
    finish(axes, "Output length", rows, empty=not drawn, legend=True)


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
    finish(axes, "Loss against reward, one dot per step", [], empty=not points)


def _draw_accuracy(axes: Axes, evaluations: list[Row]) -> None:
    """Bars, one per evaluation, grouped by level: tagged accuracy with its interval. Dots: last-number accuracy."""
    levels = list(dict.fromkeys(level for evaluation in evaluations for level in evaluation["levels"]))
    width = 0.8 / max(len(evaluations), 1)
    trained = [evaluation["name"] for evaluation in evaluations if evaluation["name"] != "before"]
    blues = dict(zip(trained, matplotlib.colormaps["Blues"](np.linspace(0.45, 0.95, len(trained))), strict=True))
    for index, evaluation in enumerate(evaluations):
        results = [(x, evaluation["levels"][level]) for x, level in enumerate(levels) if level in evaluation["levels"]]
        xs = [x + (index - (len(evaluations) - 1) / 2) * width for x, _ in results]
        tagged = [result["accuracy_tagged"] for _, result in results]
        spans = [wilson_interval(result["accuracy_tagged"], result["num_problems"]) for _, result in results]
        errors = np.abs(np.transpose(spans) - tagged) if results else None
        error_style = {"ecolor": INK, "elinewidth": 0.8, "alpha": 0.55}
        color = blues.get(evaluation["name"], GREY)
        axes.bar(xs, tagged, width * 0.92, color=color, label=evaluation["name"], yerr=errors, error_kw=error_style)
        last = [result["accuracy_last_number"] for _, result in results]
        label = "last number" if evaluation is evaluations[-1] else None
        axes.plot(xs, last, "o", ms=4, mfc="white", mec=INK, mew=0.9, ls="none", label=label)
    axes.set_xticks(range(len(levels)), levels)
    if len(levels) > 5:
        axes.tick_params(axis="x", rotation=30)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("held-out accuracy, tagged")
    finish(axes, "Accuracy per level", [], empty=not levels, legend=True)
    axes.set_xlabel("level")


def _draw_phases(axes: Axes, rows: list[Row]) -> None:
    steps = [row["step"] for row in rows]
    edges = [step - 0.5 for step in steps] + [step + 0.5 for step in steps[-1:]]
    base, drawn = np.zeros(len(rows)), False
    for part, color in zip(STEP_PARTS, (BLUE, GREEN, ORANGE, PURPLE, GREY), strict=True):
        seconds = np.array([number(row, f"{part}_s") or 0.0 for row in rows])
        if seconds.any():
            label = part.replace("_", " ")
            axes.stairs(base + seconds, edges, baseline=base, fill=True, color=color, lw=0, label=label)
            base, drawn = base + seconds, True
    axes.set_ylabel("seconds per step")
    finish(axes, "Time by phase", rows, empty=not drawn, legend=True)


def _draw_speed(axes: Axes, rows: list[Row]) -> None:
    keys = {"rollout_tokens_per_s": ("rollout", BLUE), "learner_tokens_per_s": ("learner", ORANGE)}
    drawn = [curve(axes, rows, key, color, label) for key, (label, color) in keys.items()]
    axes.set_ylabel("tokens per second")
    axes.set_ylim(bottom=0)
    finish(axes, "Throughput", rows, empty=not any(drawn), legend=True)
