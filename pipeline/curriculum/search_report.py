"""The report of a search, ``report.html`` with its plots, and the section of a run's page about its curriculum."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.curriculum.chain_results import CORRECT_BY, ChainResult, CurriculumResults, require_chains
from pipeline.curriculum.estimates import Estimate, summarize
from pipeline.curriculum.findings import RATIO, Findings, forgetting_metric, judge, replay_ratios
from pipeline.curriculum.forgetting import ChainAnswers, forgetting_by_level
from pipeline.curriculum.learning_curves import Curve, learning_curves
from pipeline.curriculum.plots import draw_learning_curves, draw_matrices, draw_replay_ratio, level_order
from pipeline.curriculum.search_summary import stage_seconds, stage_uses, summarize_search
from pipeline.curriculum.search_tables import (
    METRIC_NAMES,
    UNFINISHED_HEAD,
    estimate_cell,
    percent,
    settings_table,
    unfinished_lines,
)
from pipeline.files import write_atomic, write_json
from pipeline.reports import page
from pipeline.reports.accuracy import MEASURE_TITLES
from pipeline.runs.records import Row, number, read_config

NOTE = (
    "Percent; in small print the 95 % interval by bootstrap over held-out problems, and largest minus smallest over "
    "seeds. Forgetting: best accuracy so far minus accuracy now. The best of several noisy accuracies is biased "
    "upwards, and more so the more there are: compare forgetting only between chains with the same number of stages; "
    "average accuracy can be compared between any."
)


def write_search_report(run_dir: str | Path, output_dir: str | Path | None = None) -> Path:
    """Draw the plots of a search, write ``summary.json`` and ``report.html``. The search need not be over.

    Args:
        output_dir: where to write; the search itself is then left unchanged. Default: the run directory.

    Returns:
        The path of ``report.html``.

    Raises:
        CheckpointError: no chains, a corrupt file, or the output cannot be written.
    """
    run_dir = Path(run_dir)
    results, config = require_chains(run_dir), read_config(run_dir)
    findings = {measure: judge(results, measure) for measure in CORRECT_BY}
    summary = summarize_search(run_dir.resolve().name, results, findings)
    output_dir = Path(output_dir or run_dir)
    with page.writing_to(output_dir):
        plots = output_dir / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / "summary.json", summary)
        curves = learning_curves(run_dir, results)
        html = _search_page(summary, results, findings, config, curves, plots)
        write_atomic(output_dir / "report.html", html.encode())
    return output_dir / "report.html"


def chain_section(chain: ChainResult, plots_dir: Path) -> str:
    """The section of a run's page about its curriculum: the matrix, drawn and in numbers, and its metrics."""
    if not chain.answers:
        return page.note(chain.problem or "No stage has been evaluated yet.")
    image = page.image(draw_matrices({"": [chain.answers[CORRECT_BY[0]]]}, plots_dir / "matrix.png"))
    first, *others = (_chain_tables(answers) for answers in chain.answers.values())
    return image + _by_measure(first, others)


def _by_measure(first: str, others: Iterable[str]) -> str:
    """The measure to judge by, and the others folded."""
    folded = (page.details(MEASURE_TITLES[by], html) for by, html in zip(CORRECT_BY[1:], others, strict=True))
    return f"<p><b>{page.text(MEASURE_TITLES[CORRECT_BY[0]])}</b></p>{first}{page.note(NOTE)}{''.join(folded)}"


def _chain_tables(answers: ChainAnswers) -> str:
    order = level_order(answers)
    matrix = answers.matrix()[:, order]
    names = ["before", *answers.stages]
    lines = [[name, *map(percent, row), percent(float(row.mean()))] for name, row in zip(names, matrix, strict=True)]
    lost = forgetting_by_level(matrix)[-1]
    lines.append(["forgetting", *map(percent, lost), percent(float(lost.mean()))])
    (estimates,) = summarize([answers]).values()
    head = ["after", *(answers.levels[index] for index in order), "mean"]
    return page.table(head, lines, "totals") + page.table(METRIC_NAMES, [map(estimate_cell, estimates.values())])


def _search_page(
    summary: Row,
    results: CurriculumResults,
    findings: Mapping[str, Findings],
    config: Row,
    curves: Mapping[str, Sequence[Curve]],
    plots_dir: Path,
) -> str:
    first, *others = (
        page.table(*settings_table(results, by_measure))
        + "".join(f"<p>{page.text(statement)}</p>" for statement in by_measure.statements)
        for by_measure in findings.values()
    )
    unfinished = unfinished_lines(results)
    sections = {
        "Settings": _by_measure(first, others),
        "Tagged accuracy against sampled tokens": _learning_curves(curves, plots_dir),
        "Accuracy and forgetting against the replay ratio": _ratio_plot(results, findings[CORRECT_BY[0]], plots_dir),
        "Accuracy after every stage": _matrices(results, plots_dir),
        "Chains without a result": page.table(UNFINISHED_HEAD, unfinished, "plain") if unfinished else "",
        "Stages": _stages(summary["stages"], results),
        "Configuration": page.configuration(config),
        "Versions": page.table(["package", "installed"], summary["versions"].items(), "plain"),
    }
    return page.build(summary["run"], _headline(summary, findings[CORRECT_BY[0]], config), sections)


def _headline(summary: Row, findings: Findings, config: Row) -> str:
    statuses, stages = summary["num_chains"], summary["stages"]
    cards = [
        ("chains finished", f"{statuses.get('finished', 0)} of {sum(statuses.values())}"),
        ("different stages trained", f"{stages['num_trained']} of {stages['num_different']}"),
        ("wall time", page.duration(stages["wall_time_s"])),
    ]
    if findings.comparison:
        cards.append(("best setting against the baseline, points", f"{100 * findings.comparison.difference:+.1f}"))
    return page.headline([config.get("model", {}).get("name", "")], cards) + page.note(findings.statements[0])


def _learning_curves(curves: Mapping[str, Sequence[Curve]], plots_dir: Path) -> str:
    if not curves:
        return ""
    image = page.image(draw_learning_curves(curves, plots_dir / "learning_curves.png"))
    return image + page.note("The last stage of every chain. Thick: mean over the seeds; thin: single seeds.")


def _ratio_plot(results: CurriculumResults, findings: Findings, plots_dir: Path) -> str:
    """Settings that differ only in the replay ratio form a curve."""
    curves: dict[str, dict[float, dict[str, Estimate | None]]] = {}
    for setting, ratio in replay_ratios(results).items():
        if setting in findings.summaries:
            values = next(c.record.values for c in results.chains if c.record.setting == setting)
            label = ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in values.items() if k not in (RATIO, "seed"))
            curves.setdefault(label or "curriculum", {})[ratio] = findings.summaries[setting]
    if not curves:
        return ""
    metric = forgetting_metric(results, findings.summaries) or "forgetting"
    bands = {}
    note = "Bars: 95 % interval by bootstrap over held-out problems. Rings: single seeds."
    baseline = next(iter(results.baselines), "")
    for name in ("average_accuracy", metric):
        estimate = findings.summaries.get(baseline, {}).get(name)
        if estimate and (name == "average_accuracy" or _same_length(results, baseline)):
            bands[name] = (baseline, estimate)
    if "average_accuracy" in bands and metric not in bands:
        note += " Forgetting of the baseline is not drawn: it has a different number of stages."
    path = draw_replay_ratio(curves, bands, ("average_accuracy", metric), plots_dir / "replay_ratio.png")
    return page.image(path) + page.note(note)


def _same_length(results: CurriculumResults, baseline: str) -> bool:
    """The baseline has as many stages as the settings with a replay ratio."""
    compared = {baseline, *replay_ratios(results)}
    return len({len(c.record.stages) for c in results.chains if c.record.setting in compared}) == 1


def _matrices(results: CurriculumResults, plots_dir: Path) -> str:
    """Means over seeds in one picture, and one of its own for every chain that was evaluated."""
    measure = CORRECT_BY[0]
    panels = {
        setting: chains
        for setting in results.settings
        if (chains := [answers for answers in results.complete(measure) if answers.setting == setting])
    }
    html = ""
    if panels:
        html += page.image(draw_matrices(panels, plots_dir / "matrices.png"))
        html += page.note("Percent, mean over seeds. A frame: the stage trained on this level.")
    for chain in results.chains:
        if chain.answers:
            path = plots_dir / f"matrix_{chain.record.file_name}.png"
            draw_matrices({chain.record.name: [chain.answers[measure]]}, path)
            html += page.details(f"{chain.record.name} · {chain.status}", page.image(path))
    return html


def _stages(counts: Row, results: CurriculumResults) -> str:
    text = (
        f"The {len(results.chains)} chains have {counts['num_in_chains']} stages, {counts['num_different']} of them "
        f"different: {counts['num_shared']} are shared. {counts['num_trained']} are done. Together they took "
        f"{page.duration(counts['total_s'])}, some of them at the same time."
    )
    uses, lines = stage_uses(results), {}
    for chain in results.chains:
        for stage in chain.record.stages:
            marker = results.markers.get(stage.key or "", {})
            seconds, score = stage_seconds(marker), number(marker, "score")
            lines[stage.key] = [
                stage.name,
                stage.kind,
                (chain.record.name, stage.key or ""),
                uses[stage.key or ""],
                "-" if seconds is None else page.duration(seconds),
                "-" if score is None else f"{score:.3f}",
            ]
    table = page.table(["stage", "kind", "chain", "chains", "time", "score"], lines.values())
    return f"<p>{page.text(text)}</p>{page.details('all stages', table)}"
