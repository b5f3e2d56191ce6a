"""Writes the report of a run, a search or an evaluation: ``summary.json`` for programs, ``report.html`` for people.

pipeline/run_page/                           the page of a run, static and live
pipeline/curriculum/search_report.py         of a search, and the curriculum section of a run
pipeline/audit/section.py                    the audit section of a run
pipeline/questions/summary.py                the section on written problems of a run
pipeline/evaluation/evaluation_report.py     of an evaluation
"""

from pathlib import Path

from pipeline.audit.run import audit_run
from pipeline.audit.section import audit_section
from pipeline.curriculum.chain_results import ChainResult, read_chains
from pipeline.curriculum.search_report import chain_section, write_search_report
from pipeline.curriculum.search_summary import summarize_chain
from pipeline.errors import CheckpointError
from pipeline.evaluation.evaluation_report import write_evaluation_report
from pipeline.evaluation.record import RECORD_FILE
from pipeline.files import write_atomic, write_json
from pipeline.questions.summary import writing_section
from pipeline.reports import page
from pipeline.reports.plots import draw_all
from pipeline.reports.run_summary import summarize_run
from pipeline.run_page.page import run_page
from pipeline.run_page.sections import headline, report_sections
from pipeline.run_page.state import RunState
from pipeline.runs.atlas import write_atlas
from pipeline.runs.ledger_check import check_ledger
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.records import Row, read_config, read_data_counts, read_evaluations, read_memory


def write_report(run_dir: str | Path, output_dir: str | Path | None = None) -> Path:
    """Draw the plots, write ``summary.json`` and ``report.html``. The run may still be in progress.

    Args:
        output_dir: where to write; the run itself is then left unchanged. Default: the run directory.

    Returns:
        The path of ``report.html``.

    Raises:
        CheckpointError: no such run, nothing recorded yet, a corrupt file, or the output cannot be written.
    """
    run_dir = Path(run_dir)
    if (run_dir / RECORD_FILE).exists():
        return write_evaluation_report(run_dir, output_dir)
    chains = read_chains(run_dir)
    if chains and chains.kind == "search":
        return write_search_report(run_dir, output_dir)
    return _write_run_report(run_dir, Path(output_dir or run_dir), chains.chains[0] if chains else None)


def _write_run_report(run_dir: Path, output_dir: Path, chain: ChainResult | None) -> Path:
    """
    Args:
        chain: the curriculum that the run followed, if any.
    """
    rows, evaluations = _read_run(run_dir)
    config = read_config(run_dir)
    audit = audit_run(run_dir)
    summary = summarize_run(run_dir.resolve().name, rows, evaluations, config)
    summary["data"], summary["memory"] = read_data_counts(run_dir), read_memory(run_dir)
    if ledger := check_ledger(run_dir):
        summary["ledger"] = ledger.summary() | {"verdict": str(ledger)}
    if chain:
        summary["curriculum"] = summarize_chain(chain, with_metrics=True)
    if audit:
        summary["audit"] = {key: value for key, value in audit.items() if key != "examples"}
    with page.writing_to(output_dir):
        plots_dir = output_dir / "plots"
        plots = draw_all(run_dir, plots_dir)
        curriculum = chain_section(chain, plots_dir) if chain else ""
        audited = audit_section(audit, plots_dir)
        write_json(output_dir / "summary.json", summary)
        state, problems = _read_atlas(run_dir, output_dir)
        sections = report_sections(run_dir, summary, config, curriculum, audited, writing_section(evaluations))
        html = run_page(state, headline(summary, config), problems | sections, picture=plots[0] if plots else None)
        write_atomic(output_dir / "report.html", html.encode())
    return output_dir / "report.html"


def _read_atlas(run_dir: Path, output_dir: Path) -> tuple[RunState, dict[str, str]]:
    """The part of the run that the page shows; and if its ledger or completions are corrupt, a section that says so,
    because the rest of the report does not need them."""
    state = RunState(run_dir)
    try:
        state.read()
        write_atlas(run_dir, output_dir)
    except CheckpointError as error:
        return state, {"Problems": page.note(error)}
    return state, {}


def _read_run(run_dir: Path) -> tuple[list[Row], list[Row]]:
    """Metrics rows and evaluations."""
    if not run_dir.is_dir():
        raise CheckpointError(f"run directory must exist, got {run_dir}. Runs are under output/experiments/.")
    rows, evaluations = read_metrics(run_dir), read_evaluations(run_dir)
    if not rows and not evaluations:
        raise CheckpointError(f"run {run_dir} has no metrics yet: nothing to report. Wait for its first step.")
    return rows, evaluations
