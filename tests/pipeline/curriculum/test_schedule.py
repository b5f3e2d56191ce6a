"""The schedule of a stage, driven through its steps without a model."""

import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from pipeline.config import GRPOConfig, HeldOutConfig, PromotionConfig, SFTConfig
from pipeline.curriculum.schedule import StageSchedule, stage_decision
from pipeline.errors import TrainingError
from pipeline.runs.checkpoints import Progress

BY_ACCURACY = HeldOutConfig(total_eval_times=4, metric_for_best_model="answer_accuracy")


def schedule(
    num_steps: int = 4,
    held_out: HeldOutConfig | None = None,
    progress: Progress | None = None,
    settings: SFTConfig | GRPOConfig | None = None,
    **rule: object,
) -> StageSchedule:
    """A schedule; further arguments make its promotion rule."""
    return StageSchedule(
        progress or Progress("s"),
        settings or SFTConfig(),
        num_steps,
        held_out or HeldOutConfig(),
        PromotionConfig.model_validate(rule) if rule else None,
    )


def never() -> float:
    raise AssertionError("no accuracy is needed here")


def steps(schedule: StageSchedule, accuracies: Iterable[float] = ()) -> Iterator[int]:
    """Steps from 0 up to the end of the stage. Evaluations of its level give the accuracies in turn."""
    given = iter(accuracies)
    while not schedule.is_over(lambda: next(given)):
        yield schedule.progress.stage_step
        schedule.progress.stage_step += 1
        schedule.progress.step += 1
    assert not list(given)


# The end of a stage ------------------------------------------------------------------------------


def test_a_stage_takes_its_steps_and_evaluates_no_level_without_a_rule():
    assert list(steps(schedule(num_steps=3))) == [0, 1, 2]


def test_a_resumed_stage_takes_the_steps_that_are_left():
    assert list(steps(schedule(num_steps=5, progress=Progress("s", stage_step=3, step=13)))) == [3, 4]


@pytest.mark.parametrize("rule", [{}, {"threshold": 0.5}])
def test_a_stage_that_is_done_takes_no_step(rule):
    assert schedule(progress=Progress("s", stage_step=2, stage_done=True), **rule).is_over(never)


@pytest.mark.parametrize("rule", [{}, {"threshold": 0.5, "max_repeats": 1}])
def test_a_stage_with_a_reason_to_end_early_is_over_and_not_repeated(rule):
    assert schedule(progress=Progress("s", stage_step=2, ended_early="nothing to learn"), **rule).is_over(never)


def test_it_stops_early_once_patience_runs_out():
    stopping = BY_ACCURACY.model_copy(update={"early_stopping_patience": 2})
    scores = [0.1, 0.4, 0.4, 0.3, 0.9]  # an equal one is no new best
    stage = schedule(num_steps=20, held_out=stopping)
    taken = [stage.record_score({"eval_answer_accuracy": scores[step]}, 0.0) for step in steps(stage)]
    assert taken == [True] * 4
    assert stage.progress.eval_scores == scores[:4]


def test_evaluations_without_patience_end_nothing():
    stage = schedule(num_steps=4, held_out=BY_ACCURACY)
    assert [stage.record_score({"eval_answer_accuracy": 0.0}, 0.0) for _ in steps(stage)] == [True] * 4


# Promotion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "accuracies", "steps_left", "num_repeats", "decision"),
    [
        ({"threshold": 0.8}, [0.1, 0.5], True, 0, "continue"),
        ({"threshold": 0.8}, [0.1, 0.8], True, 0, "end"),
        ({"threshold": 0.8}, [0.1, 0.5], False, 0, "end"),  # missed, and no repeats allowed
        ({"threshold": 0.8, "max_repeats": 2}, [0.1, 0.5], False, 1, "repeat"),
        ({"threshold": 0.8, "max_repeats": 2}, [0.1, 0.5], False, 2, "end"),
        ({"threshold": 0.8, "max_repeats": 2}, [0.1, 0.9], False, 0, "end"),
        ({"patience": 2}, [0.5, 0.4, 0.5], True, 0, "end"),  # equal is not better: two without a new best
        ({"patience": 2}, [0.5, 0.4, 0.6], True, 0, "continue"),
        ({"patience": 2}, [0.5, 0.4], True, 0, "continue"),
        ({"patience": 1, "threshold": 0.9, "max_repeats": 1}, [0.5, 0.4], True, 0, "repeat"),
        ({"max_repeats": 3}, [0.1], False, 0, "end"),  # no threshold to miss
    ],
)
def test_promotion(rule, accuracies, steps_left, num_repeats, decision):
    rule = PromotionConfig.model_validate(rule)
    assert stage_decision(rule, accuracies, steps_left=steps_left, num_repeats=num_repeats) == decision


def test_the_level_is_evaluated_at_the_start_every_few_steps_and_at_the_end():
    stage = schedule(num_steps=5, threshold=0.9, every_steps=2)
    assert list(steps(stage, [0.1, 0.2, 0.3, 0.4])) == [0, 1, 2, 3, 4]  # before steps 0, 2 and 4, and after the last
    assert stage.progress.level_accuracies == [0.1, 0.2, 0.3, 0.4]


def test_a_stage_ends_at_its_threshold():
    assert list(steps(schedule(num_steps=9, threshold=0.5, every_steps=2), [0.1, 0.2, 0.5])) == [0, 1, 2, 3]


def test_a_level_solved_before_the_stage_gets_steps_all_the_same():
    assert list(steps(schedule(num_steps=9, threshold=0.5, every_steps=3), [1.0, 1.0])) == [0, 1, 2]


def test_a_stage_ends_when_its_level_stalls():
    assert list(steps(schedule(num_steps=9, patience=2, every_steps=1), [0.3, 0.2, 0.3])) == [0, 1]


def test_a_stage_that_missed_its_threshold_is_repeated():
    stage = schedule(num_steps=3, threshold=0.9, every_steps=2, max_repeats=1)
    # first pass: before steps 0 and 2, and after the last; second: before its third step, and after its last
    assert list(steps(stage, [0.1, 0.2, 0.3, 0.4, 0.5])) == [0, 1, 2, 3, 4, 5]
    progress = stage.progress
    assert (progress.num_repeats, progress.pass_start) == (1, 3)
    assert progress.level_accuracies == [0.3, 0.4, 0.5]  # the second pass starts from the first one's end


def test_a_repeat_forgets_the_evaluations_of_the_pass_before():
    stopping = BY_ACCURACY.model_copy(update={"early_stopping_patience": 2})
    stage = schedule(num_steps=2, held_out=stopping, threshold=0.9, max_repeats=1, every_steps=2)
    scores = iter([0.5, 0.4, 0.3, 0.2])
    accuracies = [0.1, 0.2, 0.95]
    assert [stage.record_score({"eval_answer_accuracy": next(scores)}, 0.0) for _ in steps(stage, accuracies)]
    assert stage.progress.eval_scores == [0.3, 0.2]


def test_a_stage_resumed_between_evaluations_asks_for_the_next_one_only():
    progress = Progress("s", stage_step=5, step=25, pass_start=4, num_repeats=1, level_accuracies=[0.3])
    stage = schedule(num_steps=4, progress=progress, threshold=0.9, every_steps=2, max_repeats=1)
    assert list(steps(stage, [0.4, 0.5])) == [5, 6, 7]


def test_every_resume_of_a_stage_ends_it_like_an_unbroken_one():
    """Resumed from a copy of its progress before any step, with the accuracies still to come."""
    rule: dict[str, Any] = {"threshold": 0.9, "every_steps": 2, "max_repeats": 2}
    remaining = [0.1, 0.2, 0.3, 0.5, 0.4, 0.6, 0.95]
    whole, saved = schedule(num_steps=3, **rule), []
    while True:
        saved.append((deepcopy(whole.progress), list(remaining)))
        if whole.is_over(lambda: remaining.pop(0)):
            break
        whole.progress.stage_step += 1
        whole.progress.step += 1
    assert len(saved) == 10 and whole.progress.num_repeats == 2
    for progress, still_to_come in saved:
        resumed = schedule(num_steps=3, progress=progress, **rule)
        list(steps(resumed, still_to_come))
        assert resumed.progress == whole.progress


# Learning rate and updates -----------------------------------------------------------------------


def test_a_repeated_stage_starts_its_learning_rate_over():
    settings = SFTConfig(learning_rate=1.0, lr_schedule="linear", warmup_ratio=0.5)
    stage = schedule(num_steps=4, settings=settings, threshold=0.9, every_steps=4, max_repeats=1)
    rates = [stage.learning_rate(step) for step in steps(stage, [0.1, 0.2, 0.3])]
    assert rates == [0.5, 1.0, 1.0, 0.5] * 2  # two steps up, two down


def test_updates_are_counted_within_a_pass():
    stage = schedule(num_steps=10, progress=Progress("s", stage_step=13, pass_start=10), settings=GRPOConfig(mu=4))
    assert stage.total_updates == 40
    assert stage.updates_done(within_step=2) == 14  # three whole steps of 4, and 2
    assert schedule(num_steps=10).total_updates == 10
    assert schedule(progress=Progress("s", stage_step=2)).updates_done(within_step=1) == 3


# Evaluations and scores --------------------------------------------------------------------------


def test_evaluations_are_spread_over_every_pass():
    stage = schedule(
        num_steps=8, held_out=HeldOutConfig(total_eval_times=3), threshold=0.9, every_steps=8, max_repeats=1
    )
    evaluated = [step for step in steps(stage, [0.1, 0.2, 0.3]) if stage.is_evaluation_due]
    assert evaluated == [2, 5, 7, 10, 13, 15]  # after 3, 6 and 8 steps of each pass


def test_without_evaluations_none_is_due():
    assert not any(stage.is_evaluation_due for stage in [schedule()] for _ in steps(stage))


def test_a_checkpoint_has_the_mean_score_since_the_last_one():
    stage = schedule()
    assert [stage.record_score({}, score) for score in (-3.0, -1.0)] == [False, False]
    stage.score_checkpoint()
    assert stage.progress.score == -2.0
    stage.score_checkpoint()  # the end of a stage, right after a checkpoint
    assert stage.progress.score == -2.0
    stage.record_score({}, -0.5)
    stage.score_checkpoint()
    assert stage.progress.score == -0.5
    assert stage.progress.eval_scores == []


def test_with_a_metric_a_checkpoint_has_the_score_of_its_own_weights():
    stage = schedule(held_out=BY_ACCURACY)
    assert stage.record_score({"eval_answer_accuracy": 0.25}, score=-9.0)
    stage.score_checkpoint()
    assert stage.progress.score == 0.25
    assert not stage.record_score({"loss": 1.0}, score=-9.0)  # not evaluated after this step
    stage.score_checkpoint()
    assert stage.progress.score is None


def test_a_later_step_without_an_evaluation_discards_the_score():
    stage = schedule(held_out=BY_ACCURACY)
    stage.record_score({"eval_answer_accuracy": 0.25}, 0.0)
    stage.record_score({}, 0.0)
    stage.score_checkpoint()
    assert stage.progress.score is None
    assert stage.progress.eval_scores == [0.25]


@pytest.mark.parametrize(
    ("metric", "greater_is_better", "score"),
    [("loss", None, -2.0), ("answer_accuracy", None, 2.0), ("loss", True, 2.0)],
)
def test_a_higher_score_is_better_whatever_the_metric(metric, greater_is_better, score):
    held_out = HeldOutConfig(total_eval_times=1, metric_for_best_model=metric, greater_is_better=greater_is_better)
    stage = schedule(held_out=held_out)
    stage.record_score({f"eval_{metric}": 2.0}, score=0.0)
    assert stage.progress.eval_scores == [score]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_score(score):
    stage = schedule()
    for given in (score, -1.0, -3.0):
        stage.record_score({}, given)
    stage.score_checkpoint()
    assert stage.progress.score == -2.0
    stage.record_score({}, score)
    stage.score_checkpoint()
    assert stage.progress.score is None  # these weights were not scored


def test_an_evaluation_that_is_not_finite_is_never_the_best():
    stopping = BY_ACCURACY.model_copy(update={"metric_for_best_model": "loss", "early_stopping_patience": 2})
    stage = schedule(num_steps=20, held_out=stopping)
    losses = [math.nan, 2.0, 1.0, math.nan, 1.5, 0.5]
    taken = [stage.record_score({"eval_loss": losses[step]}, 0.0) for step in steps(stage)]
    assert taken == [False, True, True, False, True]  # two evaluations without a new best after the loss of 1
    assert stage.progress.eval_scores == [None, -2.0, -1.0, None, -1.5]


def test_a_stage_whose_evaluations_are_never_finite_ends_early():
    stopping = BY_ACCURACY.model_copy(update={"early_stopping_patience": 2})
    stage = schedule(num_steps=20, held_out=stopping)
    assert len([stage.record_score({"eval_answer_accuracy": math.nan}, 0.0) for _ in steps(stage)]) == 2


# Skipped updates ---------------------------------------------------------------------------------


def test_too_many_skipped_updates_in_a_row_end_the_run():
    stage = schedule(settings=GRPOConfig(max_skipped_updates=3))
    for is_made in (False, False, True, False, False):
        stage.record_update(is_made)
    resumed = schedule(settings=stage.settings, progress=deepcopy(stage.progress))
    with pytest.raises(TrainingError, match=r"grpo\.max_skipped_updates=3 updates in a row.*Lower grpo\.learning_rate"):
        resumed.record_update(False)
