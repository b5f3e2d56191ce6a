"""Time left of a run, estimated from the steps it has made so far."""

from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

from pipeline.runs.records import Row, number

RECENT = 20
"""Steps that the pace is taken from."""


class PlannedStage(NamedTuple):
    """A stage as the driver planned it. It may end earlier."""

    name: str
    kind: str
    num_steps: int
    num_evals: int = 0
    """Held-out evaluations while it trains and at its end. Those for promotion count as part of the steps' pace."""


class StepTime(NamedTuple):
    """Times of one step, from its row in metrics.jsonl."""

    stage: str
    kind: str
    stage_step: int
    step_s: float
    """Without evaluations and checkpoints."""
    is_evaluated: bool
    pause_s: float | None
    """Time since the previous row that is not in ``step_s``: evaluations, checkpoints, the change of stages. None if
    unknown, because the run was started or resumed in between."""

    @classmethod
    def from_row(cls, row: Row, previous: Row | None = None) -> "StepTime":
        """Missing values of a row count as 0 or "".

        Args:
            previous: the row before it. None if the run was started or resumed in between.
        """
        step_s = number(row, "step_s") or 0.0
        end, previous_end = number(row, "time"), number(previous or {}, "time")
        return cls(
            stage=str(row.get("stage", "")),
            kind=str(row.get("kind", "")),
            stage_step=int(number(row, "stage_step") or 0),
            step_s=step_s,
            is_evaluated=any(key.startswith("eval_") for key in row),
            pause_s=None if end is None or previous_end is None else max(end - previous_end - step_s, 0.0),
        )


class TimeLeft(NamedTuple):
    seconds: float
    unknown: tuple[str, ...] = ()
    """Parts that ``seconds`` leaves out: kinds of stages not seen yet, or evaluations."""

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        return " + ".join([f"ETA {minutes // 60}:{minutes % 60:02}:{seconds:02}", *self.unknown])


def time_left(steps: Sequence[StepTime], stages: Sequence[PlannedStage]) -> TimeLeft | None:
    """Time for the remaining steps, each stage at its own pace, and for the remaining evaluations at the cost so far.

    Args:
        steps: all steps so far, oldest first.
        stages: all stages of the run, in order.

    Returns:
        None before the first step, or if the current stage is not planned.
    """
    names = [stage.name for stage in stages]
    if not steps or steps[-1].stage not in names:
        return None
    current, *later = stages[names.index(steps[-1].stage) :]
    own = [step for step in steps if step.stage == current.name]
    num_steps = [max(current.num_steps - own[-1].stage_step, 0), *(stage.num_steps for stage in later)]
    num_evals = current.num_evals - len({step.stage_step for step in own if step.is_evaluated})
    num_evals = max(num_evals, 0) + sum(stage.num_evals for stage in later)
    paces = {stage: _pace(steps, stage) for stage in (current, *later)}
    seconds = sum(count * (paces[stage] or 0.0) for stage, count in zip(paces, num_steps, strict=True))
    unknown = dict.fromkeys(stage.kind for stage, pace in paces.items() if pace is None)
    eval_s = _evaluation_s(steps)
    if num_evals and eval_s is None and not unknown:
        unknown["evals"] = None
    return TimeLeft(seconds + num_evals * (eval_s or 0.0), tuple(unknown))


def _pace(steps: Sequence[StepTime], stage: PlannedStage) -> float | None:
    """Seconds per step: the median of ``step_s``, because some are outliers, plus the mean pause, for checkpoints.

    Taken from recent steps of the stage itself, or else of its kind. The first step of a stage includes warm-up, so it
    counts only if there is no other. None before the first step of this kind.
    """
    same_kind = [step for step in steps if step.kind == stage.kind]
    warm = [step for step in same_kind if step.stage_step > 1]
    own = [step for step in warm if step.stage == stage.name]
    recent = (own or warm or same_kind)[-RECENT:]
    if not recent:
        return None
    pauses = [step.pause_s for step in recent if step.pause_s is not None and not _has_evaluation(step)]
    return median(step.step_s for step in recent) + (fmean(pauses) if pauses else 0.0)


def _evaluation_s(steps: Sequence[StepTime]) -> float | None:
    """Seconds per evaluation so far. At the end of a stage this includes starting the next stage."""
    pauses = [step.pause_s for step in steps if step.pause_s is not None and _has_evaluation(step)]
    return median(pauses[-RECENT:]) if pauses else None


def _has_evaluation(step: StepTime) -> bool:
    return step.is_evaluated or step.stage_step == 1
