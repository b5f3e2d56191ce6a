"""The results of a curriculum or a search in a terminal: a row per setting, unfinished chains, statements."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from pipeline.curriculum.chain_results import CurriculumResults, require_chains
from pipeline.curriculum.estimates import Estimate
from pipeline.curriculum.findings import Findings, judge
from pipeline.curriculum.forgetting import METRICS
from pipeline.reports.page import visible

if TYPE_CHECKING:
    from rich.table import Table

Cell = str | tuple[str, ...]
"""A tuple: the first part, and smaller ones below it."""
METRIC_NAMES = [metric.replace("_", " ") for metric in METRICS]
_PRINTED = [metric for metric in METRICS if metric != "gain"]
"""The columns that fit into a terminal. The gain is among the statements."""
UNFINISHED_HEAD = ["chain", "status", "stages", "score", "why"]


def search_tables(run_dir: str | Path) -> "list[Table]":
    """A row per setting, and the chains that did not finish, if any. Works for a single chain as well.

    Raises:
        CheckpointError: no chains, or a corrupt file.
    """
    results = require_chains(run_dir)
    head, lines = settings_table(results, judge(results), _PRINTED)
    settings = _to_table("held-out accuracy, tagged, in percent", head, lines, wrap=False)
    settings.caption = "below: 95 % interval over held-out problems; largest minus smallest over seeds"
    if not (unfinished := unfinished_lines(results)):
        return [settings]
    return [settings, _to_table("chains without a result", UNFINISHED_HEAD, unfinished, wrap=True)]


def search_statements(run_dir: str | Path) -> list[str]:
    """The best setting against the baseline, and the trend over the replay ratio or what every setting gained."""
    return judge(require_chains(run_dir)).statements


def settings_table(
    results: CurriculumResults, findings: Findings, metrics: Sequence[str] = tuple(METRICS)
) -> tuple[list[str], list[list[Cell]]]:
    """Head and lines: the metrics of every setting and, where GRPO sampled tokens, their mean over the seeds."""
    lines: list[list[Cell]] = []
    for setting in results.settings:
        name = f"{setting} (baseline)" if setting in results.baselines else setting
        chains = [chain for chain in results.chains if chain.record.setting == setting]
        estimates = findings.summaries.get(setting, {})
        seeds = f"{sum(chain.is_complete for chain in chains)} of {len(chains)} seeds"
        tokens = [chain.sampled_tokens for chain in chains if chain.is_complete and chain.sampled_tokens]
        mean = [f"{fmean(tokens):,.0f} sampled tokens"] if tokens else []
        lines.append([(name, seeds, *mean), *(estimate_cell(estimates.get(metric)) for metric in metrics)])
    return ["setting", *(metric.replace("_", " ") for metric in metrics)], lines


def unfinished_lines(results: CurriculumResults) -> list[list[Cell]]:
    """Lines under ``UNFINISHED_HEAD``: the chains without a result to compare."""
    return [
        [
            chain.record.name,
            chain.status,
            f"{chain.num_done} of {len(chain.record.stages)}",
            "-" if chain.score is None else f"{chain.score:.3f}",
            chain.problem or "-",
        ]
        for chain in results.chains
        if not chain.is_complete
    ]


def estimate_cell(estimate: Estimate | None) -> Cell:
    """Mean, interval and range over seeds, in percent."""
    if estimate is None:
        return "-"
    low, high = estimate.interval
    spread = "one seed" if estimate.seed_range is None else f"range {percent(estimate.seed_range)}"
    return percent(estimate.mean), f"[{percent(low)},{percent(high)}]", spread


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{round(100 * share, 1) + 0.0:.1f}"


def _to_table(title: str, head: list[str], lines: list[list[Cell]], *, wrap: bool) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_lines=True)
    for index, name in enumerate(head):
        keeps_width = index > 0 and not wrap
        table.add_column(name.replace(" ", "\n") if keeps_width else name, overflow="fold", no_wrap=keeps_width)
    for line in lines:
        table.add_row(*(Text(visible("\n".join(cell) if isinstance(cell, tuple) else cell)) for cell in line))
    return table
