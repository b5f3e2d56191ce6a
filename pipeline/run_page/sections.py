"""The sections of a run's report below its curves. All text enters them through a function of
``pipeline.reports.page`` or a number format."""

from pathlib import Path

from pipeline.reports import page
from pipeline.reports.samples import before_and_after, completions_by_step, ungraded_completions
from pipeline.runs.records import Row

_DATA_COLUMNS = {
    "num_problems": "problems",
    "num_dropped": "too long: left out",
    "num_truncated": "too long: cut off",
    "num_tokens": "tokens",
    "num_tokens_left_out": "tokens left out",
}


def report_sections(
    run_dir: Path, summary: Row, config: Row, curriculum: str, audit: str, written: str
) -> dict[str, str]:
    """HTML by heading; empty where there is no content.

    Args:
        summary: the content of ``summary.json``.
        config: the run's settings, as plain JSON.
        curriculum, audit, written: HTML of those sections.
    """
    evaluations, ledger = [e["name"] for e in summary["accuracy"]], summary.get("ledger")
    return {
        "Written problems": written,
        "Curriculum: what each stage learned and forgot": curriculum,
        "Training data": _data(summary["data"]),
        "Time": _time(summary),
        "Memory of the first learner": _memory(summary["memory"]),
        "Verifier outcomes": _outcomes(summary),
        "Ledger of rollout groups": _ledger(ledger),
        "Completions that could not be graded": ungraded_completions(run_dir),
        "Reward-hacking audit": audit,
        "The same problems, before and after each stage": before_and_after(run_dir, evaluations),
        "Completions by step": "" if ledger else completions_by_step(run_dir),
        "Configuration": page.configuration(config),
        "Versions": page.table(["package", "installed"], summary["versions"].items(), "plain"),
    }


def headline(summary: Row, config: Row) -> str:
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
    lines = [(stage, *(f"{counts[key]:,}" for key in _DATA_COLUMNS)) for stage, counts in stages.items()]
    return page.table(["stage", *_DATA_COLUMNS.values()], lines) if lines else ""


def _ledger(ledger: Row | None) -> str:
    if ledger is None:
        return page.note("no ledger")
    return f"<p>{page.text(ledger['verdict'])}</p>" + "".join(map(page.note, ledger["violations"] + ledger["notes"]))


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


def _memory(stages: dict[str, dict[str, Row]]) -> str:
    """The highest figures of every point. Devices, if several, have columns of their own."""
    lines = {(stage, point): figures for stage, points in stages.items() for point, figures in points.items()}
    if not lines:
        return ""
    columns = list(dict.fromkeys(name for figures in lines.values() for name in figures))
    return page.table(
        ["stage", "after", *(name.replace("_gib", ", GiB").replace("_frac", "") for name in columns)],
        [
            [stage, point.replace("_", " "), *(_figure(name, figures.get(name)) for name in columns)]
            for (stage, point), figures in lines.items()
        ],
    )


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if name.endswith("_frac") else f"{value:.2f}"


def _outcomes(summary: Row) -> str:
    lines = [
        [name.replace("_", " "), "-" if outcome["count"] is None else outcome["count"], f"{outcome['frac']:.2%}"]
        for name, outcome in summary["outcomes"].items()
    ]
    return page.table(["outcome", "completions", "share"], lines) if lines else ""
