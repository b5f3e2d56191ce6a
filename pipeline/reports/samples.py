"""Completions on a run's page: spread over its steps, before and after each stage, and those that were not graded."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.data.selection import natural_order
from pipeline.reports import page
from pipeline.runs.metrics_log import ungraded_path
from pipeline.runs.records import Row, read_jsonl
from pipeline.training.rollout_metrics import UNGRADED

NUM_SAMPLE_STEPS, NUM_SAMPLES, NUM_UNGRADED = 6, 4, 5


def before_and_after(run_dir: Path, evaluations: Sequence[str]) -> str:
    """HTML: for every level its first problem, with the completion of each evaluation's policy.

    Args:
        evaluations: their names, in order.
    """
    written: dict[str, list[tuple[str, Row]]] = {}
    for name in evaluations:
        for sample in read_jsonl(run_dir / "samples" / f"eval_{name}.jsonl"):
            written.setdefault(str(sample.get("problem_id")), []).append((name, sample))
    first = {str(samples[0][1].get("level")): samples for samples in reversed(written.values())}
    blocks = []
    for level in sorted(first, key=natural_order):
        problem = first[level][0][1]
        parts = "".join(_evaluated(name, sample) for name, sample in first[level])
        blocks.append(page.details(level, f"<article>{_question(problem)}{parts}</article>"))
    return "".join(blocks)


def _evaluated(name: str, sample: Row) -> str:
    tagged, last_number = ("right" if sample.get(key) else "wrong" for key in ("tagged", "last_number"))
    return page.note(f"{name} · {tagged} (tagged), {last_number} (last number)") + page.pre(sample.get("completion"))


def completions_by_step(run_dir: Path) -> str:
    """HTML: at steps spread over the run, the first completion of the first problems. Not chosen by reward."""
    paths = sorted((run_dir / "samples").glob("step_*.jsonl"))
    count = min(len(paths), NUM_SAMPLE_STEPS)
    chosen = [paths[round(i * (len(paths) - 1) / max(count - 1, 1))] for i in range(count)]
    blocks = []
    for path in chosen:
        samples = read_jsonl(path)
        shown = _one_per_problem(samples, NUM_SAMPLES)
        if shown:
            title = f"{_step(shown[0])} · {len(shown)} of {len(samples)}"
            blocks.append(page.details(title, "".join(_sample(sample) for sample in shown), is_open=path == chosen[-1]))
    return "".join(blocks)


def ungraded_completions(run_dir: Path) -> str:
    """HTML: for each outcome that is not a grade, the first completion of the first problems."""
    samples = read_jsonl(ungraded_path(run_dir))
    blocks = []
    for outcome in UNGRADED:
        kept = [sample for sample in samples if sample.get("outcome") == outcome]
        shown = _one_per_problem(kept, NUM_UNGRADED)
        if shown:
            title = f"{outcome.replace('_', ' ')} · {len(shown)} of {len(kept)} kept"
            blocks.append(page.details(title, "".join(_sample(sample, _step(sample)) for sample in shown)))
    return "".join(blocks)


def _one_per_problem(samples: Sequence[Row], count: int) -> list[Row]:
    """The first sample of each of the first problems."""
    first: dict[str, Row] = {}
    for sample in samples:
        first.setdefault(str(sample.get("problem_id")), sample)
    return list(first.values())[:count]


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
