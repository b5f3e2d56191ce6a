"""Numbers of a run for ``summary.json``: reward, time, speed and verifier outcomes, from its metrics rows."""

from collections import Counter
from itertools import pairwise
from typing import Any

from pipeline.reports import page
from pipeline.reports.accuracy import accuracy_change, with_intervals
from pipeline.reports.plots import STEP_PARTS
from pipeline.runs.records import Row, number, stage_settings


def summarize_run(name: str, rows: list[Row], evaluations: list[Row], config: Row) -> dict[str, Any]:
    """The main part of ``summary.json``.

    Args:
        rows: of ``metrics.jsonl``.
        evaluations: of ``eval/``, by step.
        config: the run's settings, as plain JSON; may be empty.
    """
    grpo = [row for row in rows if row.get("kind") == "grpo"]
    grpo_seconds = _total(grpo, "step_s")
    return {
        "run": name,
        "num_steps": rows[-1]["step"] if rows else 0,
        "steps_per_stage": dict(Counter(str(row.get("stage")) for row in rows)),
        "wall_time_s": _wall_time(rows),
        "reward": _reward(rows),
        "accuracy": [with_intervals(evaluation) for evaluation in evaluations],
        "accuracy_change": {
            "first_to_last": accuracy_change(evaluations[0], evaluations[-1]) if len(evaluations) > 1 else None,
            "between": [accuracy_change(before, after) for before, after in pairwise(evaluations)],
        },
        "phase_seconds": {part: _total(rows, f"{part}_s") for part in (*STEP_PARTS, "checkpoint", "step")},
        "grpo_phase_frac": {part: _ratio(_total(grpo, f"{part}_s"), grpo_seconds) for part in STEP_PARTS},
        "tokens_per_s": {part: _mean_speed(rows, part) for part in ("rollout", "learner")},
        "num_skipped_updates": round(_total(rows, "num_skipped_updates")),
        "outcomes": _outcomes(grpo, config),
        "versions": page.versions(),
    }


def _wall_time(rows: list[Row]) -> float:
    """Seconds from the start of the first step to the end of the last, including pauses between attempts."""
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


def _total(rows: list[Row], key: str) -> float:
    return sum(number(row, key) or 0.0 for row in rows)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean_speed(rows: list[Row], phase: str) -> float | None:
    """All tokens over all seconds, so that a short step does not weigh as much as a long one."""
    timed = [row for row in rows if number(row, f"{phase}_tokens_per_s") is not None]
    tokens = sum(row[f"{phase}_tokens_per_s"] * (number(row, f"{phase}_s") or 0.0) for row in timed)
    return _ratio(tokens, _total(timed, f"{phase}_s"))


def _outcomes(grpo: list[Row], config: Row) -> Row:
    """Completions by the verifier's outcome: mean share, and count (None if the configuration is not recorded)."""
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
    settings = stage_settings(config, "grpo", str(stage))
    size, generations = settings.get("batch_size"), settings.get("num_generations")
    return size * generations if size and generations else None
