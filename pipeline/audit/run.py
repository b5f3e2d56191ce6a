"""The audit of a run: where the two scorers disagree, how often tricks occur, and how both change over the steps."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import sqrt
from pathlib import Path
from statistics import fmean, variance
from typing import NamedTuple

from pipeline.audit.strict import DISAGREEMENTS, disagreement
from pipeline.audit.tricks import TRICKS, find_tricks
from pipeline.runs.records import Row, number, read_config, read_jsonl

GRADED = ("correct", "incorrect", "unparsed")
NUM_EXAMPLES = 3
"""Examples kept of every kind of disagreement and every trick, each from a different problem."""

_Examples = dict[str, dict[str, Row]]


class Audited(NamedTuple):
    """The audit's findings on one completion."""

    step: int
    stage: str
    problem_id: str
    length: int
    reward: float | None
    is_correct: bool
    """According to the first scorer."""
    kind: str | None
    """A name in ``DISAGREEMENTS``, or None where the scorers agree."""
    tricks: tuple[str, ...]


DRIFT_MEASURES: dict[str, Callable[[Audited], float]] = {
    "disagreement_frac": lambda one: one.kind is not None,
    "trick_frac": lambda one: bool(one.tricks),
    "length_mean": lambda one: one.length,
}
"""Values of a completion whose mean is followed over the steps. The length is in characters."""


def audit_run(run_dir: str | Path) -> Row | None:
    """The audit of the completions in ``samples/step_*.jsonl``.

    Returns:
        As ``audit_rows``.

    Raises:
        CheckpointError: a file is corrupt. A last line cut short is ignored.
    """
    data = read_config(run_dir).get("data", {})
    paths = sorted((Path(run_dir) / "samples").glob("step_*.jsonl"))
    return audit_rows(chain.from_iterable(map(read_jsonl, paths)), tagged=not data.get("prompt_template"))


def audit_rows(rows: Iterable[Row], tagged: bool = True) -> Row | None:
    """Score completions a second time, look for tricks, and compare the first steps with the last.

    Args:
        rows: as from ``pipeline.training.rollout_metrics.sample_rows``; ``completion``, ``gold`` and ``outcome``
            are required; ``step``, ``stage``, ``problem_id`` and ``reward`` are used if present.
        tagged: the prompts ask for <reasoning> and <answer>.

    Returns:
        The content of ``audit`` in summary.json (docs/audit.md), and under ``examples`` a few rows for each
        disagreement and trick, by its name. None if no row holds a graded completion.
    """
    examples: _Examples = {name: {} for name in (*DISAGREEMENTS, *TRICKS)}
    num_ungraded, audited = 0, []
    for row in rows:
        if _is_graded(row):
            audited.append(_audit(row, tagged, examples))
        else:
            num_ungraded += 1
    if not audited:
        return None
    steps = _by_step(audited)
    return {
        "num_samples": len(audited),
        "num_ungraded": num_ungraded,
        "tagged": tagged,
        **_means(audited),
        "disagreements": _disagreements(audited),
        "tricks": {name: _trick(name, audited) for name in TRICKS},
        "drift": {name: drift(steps, measure) for name, measure in DRIFT_MEASURES.items()},
        "steps": [_step(of_step) for of_step in steps],
        "examples": {name: list(rows_of.values()) for name, rows_of in examples.items()},
    }


def _is_graded(row: Row) -> bool:
    is_text = isinstance(row.get("completion"), str) and isinstance(row.get("gold"), str)
    return is_text and row.get("outcome") in GRADED


def _audit(row: Row, tagged: bool, examples: _Examples) -> Audited:
    completion, gold, is_correct = row["completion"], row["gold"], row["outcome"] == "correct"
    kind, tricks = disagreement(completion, gold, is_correct, tagged), find_tricks(completion, gold)
    step, problem_id = row.get("step"), str(row.get("problem_id"))
    for name in (*([kind] if kind else []), *tricks):
        if len(examples[name]) < NUM_EXAMPLES:
            examples[name].setdefault(problem_id, row)
    return Audited(
        step=step if isinstance(step, int) else 0,
        stage=str(row.get("stage", "")),
        problem_id=problem_id,
        length=len(completion),
        reward=number(row, "reward"),
        is_correct=is_correct,
        kind=kind,
        tricks=tricks,
    )


def _means(audited: Sequence[Audited]) -> dict[str, float]:
    return {name: fmean(map(measure, audited)) for name, measure in DRIFT_MEASURES.items()}


def _by_step(audited: Iterable[Audited]) -> list[list[Audited]]:
    """[num_steps][completions of the step], in the order of the steps."""
    steps: dict[int, list[Audited]] = defaultdict(list)
    for one in audited:
        steps[one.step].append(one)
    return [steps[step] for step in sorted(steps)]


def _step(audited: Sequence[Audited]) -> Row:
    kinds = {f"{kind}_frac": fmean(one.kind == kind for one in audited) for kind in DISAGREEMENTS}
    return {"step": audited[0].step, "stage": audited[0].stage, "num_samples": len(audited), **_means(audited), **kinds}


def _disagreements(audited: Sequence[Audited]) -> dict[str, Row]:
    counts = {kind: sum(one.kind == kind for one in audited) for kind in DISAGREEMENTS}
    return {kind: {"count": count, "frac": count / len(audited)} for kind, count in counts.items()}


def _trick(name: str, audited: Sequence[Audited]) -> Row:
    """Frequency of a trick, overall and among completions correct by the first scorer; mean reward with and without."""
    shown = [one for one in audited if name in one.tricks]
    correct = [one for one in audited if one.is_correct]
    return {
        "count": len(shown),
        "frac": len(shown) / len(audited),
        "frac_of_correct": _mean(name in one.tricks for one in correct),
        "reward_mean_with": _mean(one.reward for one in shown),
        "reward_mean_without": _mean(one.reward for one in audited if name not in one.tricks),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def drift(steps: Sequence[Sequence[Audited]], measure: Callable[[Audited], float]) -> Row | None:
    """The mean over the last third of the steps minus that over the first third, with a 95 % interval.

    Completions of one problem resemble each other, so each problem counts once per step, with its mean. The variance of
    a third's mean is the larger of two estimates: from the spread between its steps, and from the spread between
    problems within them. The interval is 1.96 standard errors to either side.

    Args:
        steps: [num_steps][completions of the step].

    Returns:
        ``first``, ``last``, ``change``, ``low`` and ``high``; ``first_steps`` and ``last_steps``, the first and last
        step of each third. None for fewer than two steps, or if a third is one step with one problem.
    """
    count = max(round(len(steps) / 3), 1)
    first, last = (
        _mean_and_variance([_by_problem(step, measure) for step in x]) for x in (steps[:count], steps[-count:])
    )
    if len(steps) < 2 or not first or not last:
        return None
    change, half = last[0] - first[0], 1.96 * sqrt(first[1] + last[1])
    return {
        "first": first[0],
        "last": last[0],
        "change": change,
        "low": change - half,
        "high": change + half,
        "first_steps": [steps[0][0].step, steps[count - 1][0].step],
        "last_steps": [steps[-count][0].step, steps[-1][0].step],
    }


def _by_problem(step: Iterable[Audited], measure: Callable[[Audited], float]) -> list[float]:
    values: dict[str, list[float]] = defaultdict(list)
    for one in step:
        values[one.problem_id].append(measure(one))
    return [fmean(of_problem) for of_problem in values.values()]


def _mean_and_variance(steps: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Mean over steps, each with one value per problem, and the variance of that mean. None if there is only one value
    to estimate it from."""
    means = [fmean(step) for step in steps]
    estimates = []
    if len(means) > 1:
        estimates.append(variance(means) / len(means))
    if all(len(step) > 1 for step in steps):
        estimates.append(sum(variance(step) / len(step) for step in steps) / len(steps) ** 2)
    return (fmean(means), max(estimates)) if estimates else None
