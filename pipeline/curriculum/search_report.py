"""What a run or a search of chains came to: tables, statements, pictures, ``summary.json`` and a page."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.curriculum.chain_results import (
    MEASURES,
    RATIO,
    Chain,
    Chains,
    Findings,
    find,
    forgetting_metric,
    read_chains,
    replay_ratios,
)
from pipeline.curriculum.forgetting import (
    METRICS,
    Array,
    ChainOutcomes,
    Estimate,
    forgetting_by_level,
    summarize,
    summary_rows,
)
from pipeline.curriculum.plots import draw_matrices, draw_replay_ratio, level_order
from pipeline.errors import CheckpointError
from pipeline.files import write_atomic, write_json
from pipeline.reports import page
from pipeline.reports.accuracy import MEASURE_TITLES
from pipeline.runs.records import Row, number, read_config

if TYPE_CHECKING:
    from rich.table import Table

NOTE = (
    "Percent; in small print the 95 % interval by bootstrap over held-out problems, and largest minus smallest over "
    "seeds. Forgetting: best accuracy so far minus accuracy now. The best of several noisy accuracies is biased "
    "upwards, the more of them the more: compare forgetting between chains with the same number of stages only, and "
    "average accuracy between any."
)

# Tables ------------------------------------------------------------------------------------------


def search_tables(run_dir: str | Path) -> "list[Table]":
    """A row per setting, and the chains that did not finish, if any. Works for a single chain as well.

    Raises:
        CheckpointError: no chains, or a corrupt file.
    """
    from rich.table import Table
    from rich.text import Text

    chains = _require_chains(run_dir)

    def to_table(title: str, head: list[str], lines: list[list[Cell]], *, wrap: bool) -> Table:
        table = Table(title=title, show_lines=True)
        for index, name in enumerate(head):
            keeps_width = index > 0 and not wrap
            table.add_column(name.replace(" ", "\n") if keeps_width else name, overflow="fold", no_wrap=keeps_width)
        for line in lines:
            table.add_row(*(Text(page.visible("\n".join(cell) if isinstance(cell, tuple) else cell)) for cell in line))
        return table

    settings = to_table("held-out accuracy, tagged, in percent", *_settings_table(chains, find(chains)), wrap=False)
    settings.caption = "below: 95 % interval over held-out problems; largest minus smallest over seeds"
    if not (lines := _unfinished_lines(chains)):
        return [settings]
    return [settings, to_table("chains without a result", UNFINISHED_HEAD, lines, wrap=True)]


def search_statements(run_dir: str | Path) -> list[str]:
    """The best setting against the baseline, and the trend over the replay ratio, or why there are none."""
    return find(_require_chains(run_dir)).statements


def _require_chains(run_dir: str | Path) -> Chains:
    chains = read_chains(run_dir)
    if chains is None:
        raise CheckpointError(f"run {run_dir} must have a chains.json, got none: it followed no curriculum.")
    return chains


Cell = str | tuple[str, ...]
METRIC_NAMES = [metric.replace("_", " ") for metric in METRICS]
UNFINISHED_HEAD = ["chain", "status", "stages", "score", "why"]


def _settings_table(chains: Chains, findings: Findings) -> tuple[list[str], list[list[Cell]]]:
    lines: list[list[Cell]] = []
    for setting in chains.settings:
        name = f"{setting} (baseline)" if setting in chains.baselines else setting
        held = [chain for chain in chains.chains if chain.entry.setting == setting]
        estimates = findings.summaries.get(setting, {})
        seeds = f"{sum(chain.is_complete for chain in held)} of {len(held)} seeds"
        lines.append([(name, seeds), *(_estimate_cell(estimates.get(metric)) for metric in METRICS)])
    return ["setting", *METRIC_NAMES], lines


def _estimate_cell(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return "-"
    low, high = estimate.interval
    spread = "one seed" if estimate.seed_range is None else f"range {_percent(estimate.seed_range)}"
    return _percent(estimate.mean), f"[{_percent(low)},{_percent(high)}]", spread


def _unfinished_lines(chains: Chains) -> list[list[Cell]]:
    return [
        [
            chain.entry.name,
            chain.status,
            f"{chain.num_done} of {len(chain.entry.stages)}",
            "-" if chain.score is None else f"{chain.score:.3f}",
            chain.problem or "-",
        ]
        for chain in chains.chains
        if not chain.is_complete
    ]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{round(100 * share, 1) + 0.0:.1f}"


# summary.json ------------------------------------------------------------------------------------


def summarize_search(name: str, chains: Chains, findings: Mapping[str, Findings]) -> dict[str, Any]:
    """The content of a search's ``summary.json``."""
    return {
        "run": name,
        "kind": "search",
        "baseline": next(iter(chains.baselines), None),
        "num_chains": dict(Counter(chain.status for chain in chains.chains)),
        "stages": _stage_counts(chains),
        **{measure: _plain_findings(found) for measure, found in findings.items()},
        "chains": [summarize_chain(chain) for chain in chains.chains],
        "versions": page.versions(),
    }


def summarize_chain(chain: Chain, *, with_metrics: bool = False) -> dict[str, Any]:
    """One chain, for ``summary.json``: how far it came, and what it learned and forgot by each measure."""
    measured: dict[str, Any] = {}
    for measure, outcomes in chain.outcomes.items():
        matrix = outcomes.matrix()
        measured[measure] = {
            "levels": list(outcomes.levels),
            "stages": ["before", *outcomes.stages],
            "matrix": [_by_level(outcomes, row) for row in matrix],
            "forgetting_by_level": _by_level(outcomes, forgetting_by_level(matrix)[-1]),
        }
        if with_metrics:
            (measured[measure]["metrics"],) = summary_rows(summarize([outcomes]))
    return {
        **chain.entry.model_dump(include={"name", "setting", "seed", "is_baseline"}),
        "status": chain.status,
        "num_done": chain.num_done,
        "num_stages": len(chain.entry.stages),
        "score": chain.score,
        "problem": chain.problem or None,
        **measured,
    }


def _plain_findings(found: Findings) -> dict[str, Any]:
    return {
        "settings": summary_rows(found.summaries),
        "comparison": found.comparison and asdict(found.comparison),
        "trend": found.trend and asdict(found.trend),
        "statements": found.statements,
    }


def _by_level(outcomes: ChainOutcomes, row: Array) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {level: None if math.isnan(x) else float(x) for level, x in zip(outcomes.levels, row, strict=True)}


def _stage_counts(chains: Chains) -> dict[str, Any]:
    uses = _uses(chains)
    seconds = [s for key in uses if (s := _seconds(chains.results.get(key, {}))) is not None]
    times = [t for key in uses for name in ("started", "ended") if (t := number(chains.results.get(key, {}), name))]
    return {
        "num_in_chains": sum(len(chain.entry.stages) for chain in chains.chains),
        "num_different": len(uses),
        "num_shared": sum(count > 1 for count in uses.values()),
        "num_trained": sum(key in chains.results for key in uses),
        "total_s": sum(seconds),
        "wall_time_s": max(times) - min(times) if times else 0.0,
    }


def _uses(chains: Chains) -> Counter[str]:
    """How many chains have each stage, by key."""
    return Counter(stage.key or "" for chain in chains.chains for stage in chain.entry.stages)


def _seconds(result: Row) -> float | None:
    started, ended = number(result, "started"), number(result, "ended")
    return None if started is None or ended is None else ended - started


# Pages -------------------------------------------------------------------------------------------


def write_search_report(run_dir: str | Path, output_dir: str | Path | None = None) -> Path:
    """Draw the plots of a search, write ``summary.json`` and ``report.html``. It need not be over.

    Args:
        output_dir: where to write; the search itself is then left as it is. Default: the run directory.

    Returns:
        The path of ``report.html``.

    Raises:
        CheckpointError: no chains, a corrupt file, or no place to write.
    """
    run_dir = Path(run_dir)
    chains, config = _require_chains(run_dir), read_config(run_dir)
    findings = {measure: find(chains, measure) for measure in MEASURES}
    summary = summarize_search(run_dir.resolve().name, chains, findings)
    output_dir = Path(output_dir or run_dir)
    with page.writing_to(output_dir):
        plots = output_dir / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / "summary.json", summary)
        html = _search_page(summary, chains, findings, config, plots)
        write_atomic(output_dir / "report.html", html.encode())
    return output_dir / "report.html"


def chain_section(chain: Chain, plots_dir: Path) -> str:
    """The part of a run's page about its curriculum: the matrix, drawn and in numbers, and what follows from it."""
    if not chain.outcomes:
        return page.note(chain.problem or "No stage has been evaluated yet.")
    image = page.image(draw_matrices({"": [chain.outcomes[MEASURES[0]]]}, plots_dir / "matrix.png"))
    first, *others = (_chain_tables(outcomes) for outcomes in chain.outcomes.values())
    return image + _by_measure(first, others)


def _by_measure(first: str, others: Iterable[str]) -> str:
    """The measure to judge by, and the others to be opened."""
    folded = (page.details(MEASURE_TITLES[measure], html) for measure, html in zip(MEASURES[1:], others, strict=True))
    return f"<p><b>{page.text(MEASURE_TITLES[MEASURES[0]])}</b></p>{first}{page.note(NOTE)}{''.join(folded)}"


def _chain_tables(outcomes: ChainOutcomes) -> str:
    order = level_order(outcomes)
    matrix = outcomes.matrix()[:, order]
    names = ["before", *outcomes.stages]
    lines = [[name, *map(_percent, row), _percent(float(row.mean()))] for name, row in zip(names, matrix, strict=True)]
    lost = forgetting_by_level(matrix)[-1]
    lines.append(["forgetting", *map(_percent, lost), _percent(float(lost.mean()))])
    (estimates,) = summarize([outcomes]).values()
    head = ["after", *(outcomes.levels[index] for index in order), "mean"]
    return page.table(head, lines, "totals") + page.table(METRIC_NAMES, [map(_estimate_cell, estimates.values())])


def _search_page(summary: Row, chains: Chains, findings: Mapping[str, Findings], config: Row, plots_dir: Path) -> str:
    first, *others = (
        page.table(*_settings_table(chains, found)) + "".join(f"<p>{page.text(s)}</p>" for s in found.statements)
        for found in findings.values()
    )
    unfinished = _unfinished_lines(chains)
    sections = {
        "Settings": _by_measure(first, others),
        "Accuracy and forgetting against the replay ratio": _ratio_plot(chains, findings[MEASURES[0]], plots_dir),
        "Accuracy after every stage": _matrices(chains, plots_dir),
        "Chains without a result": page.table(UNFINISHED_HEAD, unfinished, "plain") if unfinished else "",
        "Stages": _stages(summary["stages"], chains),
        "Configuration": page.configuration(config),
        "Versions": page.table(["package", "installed"], summary["versions"].items(), "plain"),
    }
    return page.build(summary["run"], _headline(summary, findings[MEASURES[0]], config), sections)


def _headline(summary: Row, found: Findings, config: Row) -> str:
    statuses, stages = summary["num_chains"], summary["stages"]
    cards = [
        ("chains finished", f"{statuses.get('finished', 0)} of {sum(statuses.values())}"),
        ("different stages trained", f"{stages['num_trained']} of {stages['num_different']}"),
        ("wall time", page.duration(stages["wall_time_s"])),
    ]
    if found.comparison:
        cards.append(("best setting against the baseline, points", f"{100 * found.comparison.difference:+.1f}"))
    return page.headline([config.get("model", {}).get("name", "")], cards) + page.note(found.statements[0])


def _ratio_plot(chains: Chains, found: Findings, plots_dir: Path) -> str:
    """Settings that differ in the replay ratio alone make a curve."""
    curves: dict[str, dict[float, dict[str, Estimate | None]]] = {}
    for setting, ratio in replay_ratios(chains).items():
        if setting in found.summaries:
            values = next(c.entry.values for c in chains.chains if c.entry.setting == setting)
            label = ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in values.items() if k not in (RATIO, "seed"))
            curves.setdefault(label or "curriculum", {})[ratio] = found.summaries[setting]
    if not curves:
        return ""
    metric = forgetting_metric(chains, found.summaries) or "forgetting"
    bands = {}
    note = "Bars: 95 % interval by bootstrap over held-out problems. Rings: single seeds."
    baseline = next(iter(chains.baselines), "")
    for name in ("average_accuracy", metric):
        estimate = found.summaries.get(baseline, {}).get(name)
        if estimate and (name == "average_accuracy" or _same_length(chains, baseline)):
            bands[name] = (baseline, estimate)
    if "average_accuracy" in bands and metric not in bands:
        note += " Forgetting of the baseline is not drawn: its number of stages is another."
    path = draw_replay_ratio(curves, bands, ("average_accuracy", metric), plots_dir / "replay_ratio.png")
    return page.image(path) + page.note(note)


def _same_length(chains: Chains, baseline: str) -> bool:
    """Whether the baseline has as many stages as the settings with a replay ratio."""
    compared = {baseline, *replay_ratios(chains)}
    return len({len(c.entry.stages) for c in chains.chains if c.entry.setting in compared}) == 1


def _matrices(chains: Chains, plots_dir: Path) -> str:
    """Means over seeds in one picture, and every chain that was evaluated in its own."""
    measure = MEASURES[0]
    panels = {
        setting: held
        for setting in chains.settings
        if (held := [outcomes for outcomes in chains.complete(measure) if outcomes.setting == setting])
    }
    html = ""
    if panels:
        html += page.image(draw_matrices(panels, plots_dir / "matrices.png"))
        html += page.note("Percent, mean over seeds. A frame: the stage trained on this level.")
    for chain in chains.chains:
        if chain.outcomes:
            path = plots_dir / f"matrix_{chain.entry.file_name}.png"
            draw_matrices({chain.entry.name: [chain.outcomes[measure]]}, path)
            html += page.details(f"{chain.entry.name} · {chain.status}", page.image(path))
    return html


def _stages(counts: Row, chains: Chains) -> str:
    text = (
        f"The {len(chains.chains)} chains have {counts['num_in_chains']} stages, {counts['num_different']} of them "
        f"different: {counts['num_shared']} are shared. {counts['num_trained']} are done, in "
        f"{page.duration(counts['total_s'])} together, some of them at the same time."
    )
    uses, lines = _uses(chains), {}
    for chain in chains.chains:
        for stage in chain.entry.stages:
            result = chains.results.get(stage.key or "", {})
            seconds, score = _seconds(result), number(result, "score")
            lines[stage.key] = [
                stage.name,
                stage.kind,
                (chain.entry.name, stage.key or ""),
                uses[stage.key or ""],
                "-" if seconds is None else page.duration(seconds),
                "-" if score is None else f"{score:.3f}",
            ]
    table = page.table(["stage", "kind", "chain", "chains", "time", "score"], lines.values())
    return f"<p>{page.text(text)}</p>{page.details('all stages', table)}"
