"""Plots of a run."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.reports.drawing import save, smooth
from pipeline.reports.plots import (
    _draw_dashboard,
    _draw_length,
    _draw_loss_vs_reward,
    _draw_phases,
    _draw_reward,
    draw_all,
)
from pipeline.runs.clock import PHASES
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import read_evaluations
from tests.support.plots import small_plots
from tests.support.runs import make_run, write_metrics

NAMES = ["training_progress", "loss", "reward", "output_length", "loss_vs_reward"]


@pytest.fixture
def small():
    with small_plots():
        yield


def test_every_plot_of_a_run_is_drawn_900_pixels_wide_or_more(tmp_path):
    paths = draw_all(make_run(tmp_path), tmp_path / "elsewhere")
    assert [path.stem for path in paths] == NAMES
    images = [imread(path) for path in paths]
    assert all(image.std() > 0.01 and image.shape[1] >= 900 for image in images)  # not blank
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize(
    "shape",
    [
        {"grpo_steps": 0, "num_evals": 2},
        {"sft_steps": 0, "num_evals": 1},
        {"sft_steps": 0, "grpo_steps": 1, "num_evals": 0},
        {"sft_steps": 1, "grpo_steps": 0, "num_evals": 0},
    ],
    ids=["sft", "grpo", "one-grpo-step", "one-sft-step"],
)
def test_every_plot_is_drawn_whatever_the_run_holds(tmp_path, small, shape):
    """The dashboard and the one plot that is not part of it."""
    run = make_run(tmp_path, **shape)
    rows, dashboard, plot = read_metrics(run), Figure(figsize=(13, 7.6)), Figure()
    _draw_dashboard(dashboard, rows, read_evaluations(run))
    _draw_loss_vs_reward(plot.subplots(), rows)
    for figure in (dashboard, plot):
        assert imread(save(figure, tmp_path / "plot.png", dpi=25)).std() > 0.01  # not blank


@pytest.mark.parametrize("rows", [[], [{"step": 1}], [{"step": 1, "kind": "grpo", "loss": None, "reward_mean": "x"}]])
def test_missing_keys_are_no_error(tmp_path, small, rows):
    write_metrics(tmp_path, rows)
    assert len(draw_all(tmp_path, tmp_path / "plots")) == len(NAMES)


def test_a_plot_without_data_says_so():
    axes = Figure().subplots()
    _draw_length(axes, [{"step": 1, "kind": "sft", "loss": 0.3}])
    assert [text.get_text() for text in axes.texts] == ["no data in this run"]


def test_stages_are_named_and_divided_by_a_line():
    rows = [{"step": step, "stage": "a" if step < 4 else "b", "reward_mean": 1.0} for step in range(1, 7)]
    axes = Figure().subplots()
    _draw_reward(axes, rows)
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_linestyle() == "--"] == [
        [3.5, 3.5]
    ]


def test_every_timed_phase_of_a_step_is_drawn():
    phases = {phase for of_kind in PHASES.values() for phase in of_kind} | {"other"}
    axes = Figure().subplots()
    _draw_phases(axes, [{"step": 1, "stage": "a", **{f"{phase}_s": 1.0 for phase in phases}}])
    legend = axes.get_legend()
    assert legend and {t.get_text() for t in legend.get_texts()} == {phase.replace("_", " ") for phase in phases}


def test_names_from_data_are_not_formulas(tmp_path, small):
    write_metrics(tmp_path, [{"step": 1, "stage": "$x_{$", "reward_mean": 1.0, "reward/$\\frac$": 0.5}])
    assert all(path.stat().st_size for path in draw_all(tmp_path, tmp_path / "plots"))


def test_smoothing_keeps_a_straight_line_straight_to_its_ends():
    line = np.arange(40, dtype=np.float64)
    assert smooth(line) == pytest.approx(line)


def test_no_axis_has_an_exponent_or_an_offset(tmp_path, monkeypatch):
    """A GRPO loss is 0 up to rounding before the first update."""
    rows = [
        {"step": step, "stage": "rl", "kind": "grpo", "loss": (-1) ** step * 3e-8, "reward_mean": 1.0 + 1e-9 * step}
        for step in range(1, 9)
    ]
    write_metrics(tmp_path, rows)
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: figures.append(figure))
    draw_all(tmp_path, tmp_path / "plots")
    texts = []
    for figure in figures:
        figure.canvas.draw()
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            texts += [axis.get_offset_text().get_text(), *(label.get_text() for label in axis.get_ticklabels())]
    assert "0.00002" in texts and not [text for text in texts if "e" in text or "×" in text]
