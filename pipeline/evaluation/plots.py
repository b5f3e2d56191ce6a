"""The plot of an evaluation: accuracy and outcomes of every model on every data set."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.evaluation.scoring import OUTCOMES
from pipeline.evaluation.summary import Result
from pipeline.reports.drawing import BLUE, COLORS, GREEN, GREY, INK, ORANGE, PURPLE, RED, STYLE, save

_OUTCOME_COLORS = dict(zip(OUTCOMES, (GREEN, RED, ORANGE, PURPLE, BLUE, GREY), strict=True))


def draw_evaluation(results: Sequence[Result], plots_dir: Path) -> Path:
    plots_dir.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.6 + 0.5 * len(results)), layout="constrained")
        accuracy, outcomes = figure.subplots(1, 2, sharey=True)
        _draw_accuracy(accuracy, results)
        _draw_outcomes(outcomes, results)
        return save(figure, plots_dir / "evaluation.png", 150)


def _draw_accuracy(axes: Axes, results: Sequence[Result]) -> None:
    places = range(len(results))
    values = [result["answer_accuracy"] for result in results]
    spans = [result["answer_accuracy_interval"] for result in results]
    errors = [[max(v - low, 0) for v, (low, _) in zip(values, spans, strict=True)]]
    errors.append([max(high - v, 0) for v, (_, high) in zip(values, spans, strict=True)])
    colors = {model: COLORS[i % len(COLORS)] for i, model in enumerate(dict.fromkeys(r["model"] for r in results))}
    axes.barh(
        places, values, color=[colors[r["model"]] for r in results], xerr=errors, error_kw={"ecolor": INK, "lw": 0.9}
    )
    axes.set_yticks(places, [f"{result['model']}\n{result['dataset']}" for result in results])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("Answer accuracy, 95 % interval")


def _draw_outcomes(axes: Axes, results: Sequence[Result]) -> None:
    left = [0.0] * len(results)
    for outcome in OUTCOMES:
        shares = [result["outcomes"][outcome] / sum(result["outcomes"].values()) for result in results]
        if any(shares):
            label = outcome.replace("_", " ")
            axes.barh(range(len(results)), shares, left=left, color=_OUTCOME_COLORS[outcome], label=label)
            left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("Outcomes of completions")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)
