"""What a run came to: ``summary.json`` for programs, ``report.html`` for people.

A run that followed a curriculum has its matrix and what was forgotten beside the rest; of a search see
``pipeline/curriculum/search_report.py``, of an evaluation ``pipeline/evaluation/evaluation_report.py``.
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.audit.run import audit_run
from pipeline.audit.section import audit_section
from pipeline.curriculum.chain_results import read_chains
from pipeline.curriculum.search_report import TITLES, chain_section, summarize_chain, write_search_report
from pipeline.data.selection import natural_order
from pipeline.errors import CheckpointError
from pipeline.evaluation.evaluation_report import write_evaluation_report
from pipeline.evaluation.record import NAME as EVALUATION
from pipeline.files import write_atomic, write_json
from pipeline.reports import page
from pipeline.reports.plots import PHASES, draw_all
from pipeline.reports.statistics import wilson_interval
from pipeline.runs.metrics_log import (
    Row,
    number,
    read_config,
    read_data_counts,
    read_evaluations,
    read_jsonl,
    read_metrics,
    ungraded_path,
)
from pipeline.training.rollout_metrics import UNGRADED

if TYPE_CHECKING:
    from rich.table import Table

MEASURES = {"tagged": "accuracy_tagged", "last_number": "accuracy_last_number", "answer": "answer_accuracy"}
"""``tagged``: the answer marked as it was asked for. ``last_number``: the last number, which needs no tags. ``answer``:
what the verifier says of the whole completion."""
NUM_SAMPLE_STEPS, NUM_SAMPLES, NUM_UNGRADED = 6, 4, 5


def write_report(run_dir: str | Path, output_dir: str | Path | None = None) -> Path:
    """Draw the plots, write ``summary.json`` and ``report.html``. A run still going can be reported on.

    Args:
        output_dir: where to write; the run itself is then left as it is. Default: the run directory.

    Returns:
        The path of ``report.html``.

    Raises:
        CheckpointError: no such run, nothing recorded yet, a corrupt file, or no place to write.
    """
    run_dir = Path(run_dir)
    if (run_dir / EVALUATION).exists():
        return write_evaluation_report(run_dir, output_dir)
    chains = read_chains(run_dir)
    if chains and chains.kind == "search":
        return write_search_report(run_dir, output_dir)
    chain = chains.chains[0] if chains else None
    rows, evaluations = _read_run(run_dir)
    config = read_config(run_dir)
    summary = summarize(run_dir.resolve().name, rows, evaluations, config)
    summary["data"] = read_data_counts(run_dir)
    if chain:
        summary["curriculum"] = summarize_chain(chain, with_metrics=True)
    if audit := audit_run(run_dir):
        summary["audit"] = {key: value for key, value in audit.items() if key != "examples"}
    output_dir = Path(output_dir or run_dir)
    with page.writing_to(output_dir):
        plots = draw_all(run_dir, output_dir / "plots")
        curriculum = chain_section(chain, output_dir / "plots") if chain else ""
        audited = audit_section(audit, output_dir / "plots")
        write_json(output_dir / "summary.json", summary)
        html = _page(run_dir, summary, config, plots, curriculum, audited)
        write_atomic(output_dir / "report.html", html.encode())
    return output_dir / "report.html"


def accuracy_table(run_dir: str | Path) -> "Table":
    """Held-out accuracy by level, before and after each stage: ``tagged (last number)``."""
    from rich.table import Table
    from rich.text import Text

    evaluations = read_evaluations(run_dir)
    table = Table(title="held-out accuracy: tagged (last number)")
    table.add_column("level")
    for evaluation in evaluations:
        table.add_column(Text(evaluation["name"]), justify="right", no_wrap=True)
    for level in [*_levels(evaluations), "overall"]:
        if level == "overall":
            table.add_section()
        results = (_result(evaluation, level) for evaluation in evaluations)
        cells = [f"{r['accuracy_tagged']:.1%} ({r['accuracy_last_number']:.1%})" if r else "-" for r in results]
        table.add_row(Text(level), *cells)
    return table


def summarize(name: str, rows: list[Row], evaluations: list[Row], config: Row) -> dict[str, Any]:
    """The content of ``summary.json``: what the rows and evaluations of a run come to."""
    grpo = [row for row in rows if row.get("kind") == "grpo"]
    return {
        "run": name,
        "num_steps": rows[-1]["step"] if rows else 0,
        "steps_per_stage": dict(Counter(str(row.get("stage")) for row in rows)),
        "wall_time_s": _wall_time(rows),
        "reward": _reward(rows),
        "accuracy": [_with_intervals(evaluation) for evaluation in evaluations],
        "accuracy_change": {
            "first_to_last": _change(evaluations[0], evaluations[-1]) if len(evaluations) > 1 else None,
            "between": [_change(before, after) for before, after in pairwise(evaluations)],
        },
        "phase_seconds": {key.removesuffix("_s"): _total(rows, key) for key in (*PHASES, "checkpoint_s", "step_s")},
        "grpo_phase_frac": {
            key.removesuffix("_s"): _ratio(_total(grpo, key), _total(grpo, "step_s")) for key in PHASES
        },
        "tokens_per_s": {name: _mean_speed(rows, name) for name in ("rollout", "learner")},
        "outcomes": _outcomes(grpo, config),
        "versions": page.versions(),
    }


def _read_run(run_dir: Path) -> tuple[list[Row], list[Row]]:
    if not run_dir.is_dir():
        raise CheckpointError(f"run directory must exist, got {run_dir}. Runs are under output/experiments/.")
    rows, evaluations = read_metrics(run_dir), read_evaluations(run_dir)
    if not rows and not evaluations:
        raise CheckpointError(f"run {run_dir} has no metrics yet: nothing to report. Wait for its first step.")
    return rows, evaluations


# Numbers


def _wall_time(rows: list[Row]) -> float:
    """From the start of the first step to the end of the last, pauses between attempts included."""
    times = [row["time"] for row in rows if number(row, "time") is not None]
    return times[-1] - times[0] + (number(rows[0], "step_s") or 0.0) if times else 0.0


def _reward(rows: list[Row]) -> dict[str, float] | None:
    steps = {row["step"]: row["reward_mean"] for row in rows if number(row, "reward_mean") is not None}
    if not steps:
        return None
    values, best = list(steps.values()), max(steps, key=lambda step: steps[step])
    last = values[-10:]
    return {
        "first": values[0],
        "final": values[-1],
        "mean_of_last_10": sum(last) / len(last),
        "best": steps[best],
        "best_step": best,
    }


def _levels(evaluations: list[Row]) -> list[str]:
    return list(dict.fromkeys(level for evaluation in evaluations for level in evaluation["levels"]))


def _result(evaluation: Row, level: str) -> Row | None:
    return evaluation["levels"].get(level) if level != "overall" else evaluation["overall"]


def _with_intervals(evaluation: Row) -> Row:
    def extend(result: Row) -> Row:
        spans = {
            f"{key}_interval": wilson_interval(result[key], result["num_problems"])
            for key in MEASURES.values()
            if key in result
        }
        return {**result, **spans}

    levels = {level: extend(result) for level, result in evaluation["levels"].items()}
    return {**evaluation, "levels": levels, "overall": extend(evaluation["overall"])}


def _change(before: Row, after: Row) -> Row:
    """Later accuracy minus earlier, for the levels that both evaluations have as many problems of."""
    changes = {
        level: {measure: new[key] - old[key] for measure, key in MEASURES.items() if key in new and key in old}
        for level in [*_levels([after]), "overall"]
        if (new := _result(after, level)) and (old := _comparable(_result(before, level), new))
    }
    overall = changes.pop("overall", {})
    return {"from": before["name"], "to": after["name"], "levels": changes, "overall": overall}


def _comparable(before: Row | None, after: Row | None) -> Row | None:
    """The earlier result where the later one is of as many problems: the last evaluation may be of more."""
    return before if before and after and before["num_problems"] == after["num_problems"] else None


def _total(rows: list[Row], key: str) -> float:
    return sum(number(row, key) or 0.0 for row in rows)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean_speed(rows: list[Row], phase: str) -> float | None:
    """All tokens over all seconds, so that a short step does not count like a long one."""
    timed = [row for row in rows if number(row, f"{phase}_tokens_per_s") is not None]
    tokens = sum(row[f"{phase}_tokens_per_s"] * (number(row, f"{phase}_s") or 0.0) for row in timed)
    return _ratio(tokens, _total(timed, f"{phase}_s"))


def _outcomes(grpo: list[Row], config: Row) -> Row:
    """Completions by the verifier's outcome: the mean share, and how many (None without a configuration)."""
    names = ("correct", "unparsed", "timeout", "bad_gold")
    rows = [row for row in grpo if number(row, "correct_frac") is not None]
    if not rows:
        return {}
    sizes = [_completions_per_step(row.get("stage"), config) for row in rows]
    weights = [size or 1 for size in sizes]
    weighted = list(zip(rows, weights, strict=True))
    counts = {name: sum((number(row, f"{name}_frac") or 0.0) * w for row, w in weighted) for name in names}
    counts["incorrect"] = sum(weights) - sum(counts.values())
    return {
        name: {"count": round(counts[name]) if all(sizes) else None, "frac": counts[name] / sum(weights)}
        for name in ("correct", "incorrect", "unparsed", "timeout", "bad_gold")
    }


def _completions_per_step(stage: str | None, config: Row) -> int | None:
    own: Row = next((s.get("settings", {}) for s in config.get("stages", []) if s.get("name") == stage), {})
    settings = {**config.get("grpo", {}), **own}
    size, generations = settings.get("batch_size"), settings.get("num_generations")
    return size * generations if size and generations else None


# The page. Everything that enters it passes through a function of pipeline.reports.page or a number format.


def _page(run_dir: Path, summary: Row, config: Row, plots: list[Path], curriculum: str, audited: str) -> str:
    sections = {
        "Accuracy on held-out problems": _accuracy(summary),
        "Curriculum: what each stage learned and forgot": curriculum,
        "Training data": _data(summary["data"]),
        "Curves": "".join(page.image(path) for path in plots),
        "Time": _time(summary),
        "Verifier outcomes": _outcome_table(summary),
        "Completions that could not be graded": _ungraded(run_dir),
        "Reward-hacking audit": audited,
        "The same problems, before and after each stage": _before_and_after(run_dir, summary),
        "Completions by step": _samples(run_dir),
        "Configuration": page.configuration(config),
        "Versions": page.table(["package", "installed"], summary["versions"].items(), "plain"),
    }
    return page.build(summary["run"], _headline(summary, config), sections)


def _headline(summary: Row, config: Row) -> str:
    stages = ", ".join(f"{stage} ({count} steps)" for stage, count in summary["steps_per_stage"].items())
    model = config.get("model", {}).get("name", "")
    cards = [("steps", summary["num_steps"]), ("wall time", page.duration(summary["wall_time_s"]))]
    if evaluations := summary["accuracy"]:
        first, last = (e["overall"]["accuracy_tagged"] for e in (evaluations[0], evaluations[-1]))
        cards.append(("accuracy, tagged, overall", f"{first:.1%} → {last:.1%}"))
    if reward := summary["reward"]:
        cards.append(("mean reward, first → last 10 steps", f"{reward['first']:.2f} → {reward['mean_of_last_10']:.2f}"))
        cards.append((f"best reward, step {reward['best_step']}", f"{reward['best']:.2f}"))
    return page.headline([model, stages], cards)


def _data(stages: dict[str, Row]) -> str:
    head = {
        "num_problems": "problems",
        "num_dropped": "too long: left out",
        "num_truncated": "too long: cut off",
        "num_tokens": "tokens",
        "num_tokens_left_out": "tokens left out",
    }
    lines = [(stage, *(f"{counts[key]:,}" for key in head)) for stage, counts in stages.items()]
    return page.table(["stage", *head.values()], lines) if lines else ""


def _accuracy(summary: Row) -> str:
    evaluations = summary["accuracy"]
    if not evaluations:
        return ""
    tables = "".join(
        f"<p><b>{page.text(TITLES[measure])}</b></p>{_accuracy_of(key, evaluations)}"
        for measure, key in MEASURES.items()
        if all(key in evaluation["overall"] for evaluation in evaluations)
    )
    note = (
        "Below each share: its 95 % Wilson interval, and the change in points from the evaluation before, if that was "
        "of as many problems."
    )
    return tables + page.note(note)


def _accuracy_of(key: str, evaluations: list[Row]) -> str:
    head = ["level", "problems", *(e["name"] for e in evaluations), "first → last"]
    lines = []
    for level in [*_levels(evaluations), "overall"]:
        results = [_result(evaluation, level) for evaluation in evaluations]
        cells = [_accuracy_cell(key, result, before) for before, result in pairwise([None, *results])]
        first, last = _comparable(results[0], results[-1]), results[-1]
        change = _points(last[key] - first[key]) if first and last and len(results) > 1 else "-"
        num_problems = ", ".join(dict.fromkeys(str(result["num_problems"]) for result in results if result))
        lines.append([level, num_problems, *cells, change])
    return page.table(head, lines, "totals")


def _accuracy_cell(key: str, result: Row | None, before: Row | None) -> str | tuple[str, str]:
    if not result:
        return "-"
    low, high = result[f"{key}_interval"]
    before = _comparable(before, result)
    change = f" · {_points(result[key] - before[key])}" if before else ""
    return f"{result[key]:.1%}", f"{low * 100:.0f}–{high * 100:.0f} %{change}"


def _time(summary: Row) -> str:
    fracs = summary["grpo_phase_frac"]
    lines = [
        [
            "whole step" if phase == "step" else phase.replace("_", " "),
            page.duration(seconds),
            "-" if (frac := fracs.get(phase)) is None else f"{frac:.1%}",
        ]
        for phase, seconds in summary["phase_seconds"].items()
    ]
    speeds = [f"{name} {speed:.0f} tokens/s" for name, speed in summary["tokens_per_s"].items() if speed is not None]
    return page.table(["phase", "total", "share of a GRPO step"], lines) + page.note(", ".join(speeds))


def _outcome_table(summary: Row) -> str:
    lines = [
        [name.replace("_", " "), "-" if found["count"] is None else found["count"], f"{found['frac']:.2%}"]
        for name, found in summary["outcomes"].items()
    ]
    return page.table(["outcome", "completions", "share"], lines) if lines else ""


def _before_and_after(run_dir: Path, summary: Row) -> str:
    """The first problem of every level with what each evaluation's policy wrote."""
    written: dict[str, list[tuple[str, Row]]] = {}
    for evaluation in summary["accuracy"]:
        for sample in read_jsonl(run_dir / "samples" / f"eval_{evaluation['name']}.jsonl"):
            written.setdefault(str(sample.get("problem_id")), []).append((evaluation["name"], sample))
    first = {str(found[0][1].get("level")): found for found in reversed(written.values())}
    blocks = []
    for level in sorted(first, key=natural_order):
        problem = first[level][0][1]
        parts = [
            f'<p class="soft">{page.text(name)} · {"right" if s.get("tagged") else "wrong"} (tagged), '
            f"{'right' if s.get('last_number') else 'wrong'} (last number)</p>{page.pre(s.get('completion'))}"
            for name, s in first[level]
        ]
        blocks.append(page.details(level, f"<article>{_question(problem)}{''.join(parts)}</article>"))
    return "".join(blocks)


def _samples(run_dir: Path) -> str:
    """The first completion of the first problems, not picked by reward, at steps spread over the run."""
    paths = sorted((run_dir / "samples").glob("step_*.jsonl"))
    count = min(len(paths), NUM_SAMPLE_STEPS)
    chosen = [paths[round(i * (len(paths) - 1) / max(count - 1, 1))] for i in range(count)]
    blocks = []
    for path in chosen:
        samples = read_jsonl(path)
        one_each = {str(sample.get("problem_id")): sample for sample in reversed(samples)}
        shown = list(reversed(one_each.values()))[:NUM_SAMPLES]
        if shown:
            title = f"{_step(shown[0])} · {len(shown)} of {len(samples)}"
            blocks.append(page.details(title, "".join(_sample(sample) for sample in shown), is_open=path == chosen[-1]))
    return "".join(blocks)


def _ungraded(run_dir: Path) -> str:
    """The first of each outcome, one of each problem."""
    samples = read_jsonl(ungraded_path(run_dir))
    blocks = []
    for outcome in UNGRADED:
        found = [sample for sample in samples if sample.get("outcome") == outcome]
        one_each = {str(sample.get("problem_id")): sample for sample in reversed(found)}
        chosen = list(reversed(one_each.values()))[:NUM_UNGRADED]
        if chosen:
            title = f"{outcome.replace('_', ' ')} · {len(chosen)} of {len(found)} kept"
            blocks.append(page.details(title, "".join(_sample(sample, _step(sample)) for sample in chosen)))
    return "".join(blocks)


def _step(sample: Row) -> str:
    return f"step {sample.get('step')} · {sample.get('stage')}"


def _sample(sample: Row, where: str = "") -> str:
    parts = sample.get("parts")
    named = ", ".join(f"{name} {value}" for name, value in parts.items()) if isinstance(parts, dict) else ""
    end = "cut off" if sample.get("stop_reason") == "length" else ""
    facts = [where, f"reward {sample.get('reward')}", named, sample.get("outcome"), end]
    line = " · ".join(str(fact) for fact in facts if fact)
    return f"<article>{_question(sample)}{page.pre(sample.get('completion'))}{page.note(line)}</article>"


def _question(sample: Row) -> str:
    where = f"{sample.get('level') or ''} {sample.get('problem_id') or ''}"
    return page.pre(sample.get("question")) + page.note(f"{where} · gold {sample.get('gold')}")


def _points(change: float) -> str:
    return f"{change * 100:+.1f}"
