"""Every expected time was worked out by hand; the working stands beside it."""

import pytest

from pipeline.runs.eta import PlannedStage, StepTime, TimeLeft, time_left

SFT, GRPO = PlannedStage("warmup", "sft", 10), PlannedStage("sums", "grpo", 20)


def steps(stage: PlannedStage, *seconds: float, first: int = 1, pauses=None, evals=()):
    """Steps ``first``, ``first`` + 1, ... of a stage. Unless ``pauses`` says otherwise there is no pause before a step,
    and before the first one it is unknown."""
    pauses = {1: None, **(pauses or {})}
    return [
        StepTime(stage.name, stage.kind, step, step_s, step in evals, pauses.get(step, 0.0))
        for step, step_s in enumerate(seconds, start=first)
    ]


def test_nothing_is_known_before_the_first_step():
    assert time_left([], [SFT, GRPO]) is None


def test_a_stage_that_is_not_planned_has_no_estimate():
    assert time_left(steps(PlannedStage("other", "sft", 3), 1.0), [SFT, GRPO]) is None


def test_a_stage_of_another_kind_is_not_measured_by_this_ones_pace():
    # 7 steps of 4 s. How long a step of GRPO takes is unknown.
    assert time_left(steps(SFT, 4.0, 4.0, 4.0), [SFT, GRPO]) == TimeLeft(28.0, ("grpo",))


def test_a_later_stage_of_the_same_kind_goes_at_the_same_pace():
    # 8 steps here and 5 there, of 4 s each.
    assert time_left(steps(SFT, 4.0, 4.0), [SFT, PlannedStage("more", "sft", 5)]) == TimeLeft(52.0)


def test_the_pace_is_that_of_the_stage_that_runs_now():
    done = [*steps(SFT, *[4.0] * 10), *steps(GRPO, 40.0, 30.0, 30.0)]
    assert time_left(done, [SFT, GRPO]) == TimeLeft(17 * 30.0)


def test_a_stage_of_the_same_kind_gives_the_pace_until_the_second_step():
    level_1, level_2 = PlannedStage("level_1", "grpo", 3), PlannedStage("level_2", "grpo", 5)
    done = steps(level_1, 60.0, 20.0, 20.0)
    assert time_left([*done, *steps(level_2, 90.0)], [level_1, level_2]) == TimeLeft(4 * 20.0)
    assert time_left([*done, *steps(level_2, 90.0, 25.0)], [level_1, level_2]) == TimeLeft(3 * 25.0)


def test_the_first_step_counts_only_while_there_is_no_other():
    assert time_left(steps(GRPO, 90.0), [GRPO]) == TimeLeft(19 * 90.0)
    assert time_left(steps(GRPO, 90.0, 30.0), [GRPO]) == TimeLeft(18 * 30.0)


def test_the_pace_is_the_median_of_the_last_twenty_steps():
    long = PlannedStage("long", "grpo", 40)
    # The last 20 are 19 of 10 s and one outlier of 500 s; the slow ones at the start are too old.
    assert time_left(steps(long, *[100.0] * 5, *[10.0] * 10, 500.0, *[10.0] * 9), [long]) == TimeLeft(15 * 10.0)


def test_checkpoints_are_shared_out_over_the_steps_between_them():
    # Steps 2 to 5 of 10 s, and one checkpoint of 8 s among them: 12 s a step, 15 steps left.
    assert time_left(steps(GRPO, *[10.0] * 5, pauses={4: 8.0}), [GRPO]) == TimeLeft(15 * 12.0)


def test_evaluations_still_to_come_cost_what_those_seen_did():
    stage = GRPO._replace(num_evals=5)  # after steps 5, 10, 15 and 20, and at the end
    done = steps(stage, *[10.0] * 11, pauses={5: 60.0, 10: 80.0}, evals={5, 10})
    # 9 steps of 10 s, 3 evaluations of 70 s.
    assert time_left(done, [stage]) == TimeLeft(300.0)


def test_an_evaluation_repeated_after_a_failure_counts_once():
    stage = GRPO._replace(num_evals=3)
    done = steps(stage, *[10.0] * 6, pauses={5: 60.0}, evals={5})
    again = steps(stage, 10.0, 10.0, first=4, pauses={5: 60.0}, evals={5})
    # 15 steps of 10 s and the 2 evaluations after step 5.
    assert time_left([*done, *again], [stage]) == TimeLeft(150.0 + 120.0)


def test_the_time_between_stages_shows_the_cost_of_an_evaluation_at_the_end():
    stages = [SFT._replace(num_evals=1), GRPO._replace(num_evals=1)]
    done = [*steps(SFT, *[4.0] * 10), *steps(GRPO, 40.0, 30.0, pauses={1: 100.0})]
    assert time_left(done, stages) == TimeLeft(18 * 30.0 + 100.0)


def test_an_evaluation_of_unknown_cost_is_named():
    stage = GRPO._replace(num_evals=1)
    done = steps(stage, 10.0, 10.0)
    assert time_left(done, [stage]) == TimeLeft(180.0, ("evals",))
    assert time_left(done, [stage, SFT]) == TimeLeft(180.0, ("sft",))  # a stage of unknown cost is still to come


def test_a_stage_that_runs_past_its_plan_has_no_steps_left():
    assert time_left(steps(SFT, *[4.0] * 12), [SFT]) == TimeLeft(0.0)


def test_a_row_gives_the_time_of_its_step_and_the_pause_before_it():
    row = {"step": 7, "stage": "sums", "kind": "grpo", "stage_step": 2, "time": 1000.0, "step_s": 30.0}
    assert StepTime.from_row(row) == ("sums", "grpo", 2, 30.0, False, None)
    evaluated = row | {"time": 1075.0, "eval_answer_accuracy": 0.5}
    assert StepTime.from_row(evaluated, row) == ("sums", "grpo", 2, 30.0, True, 45.0)
    assert StepTime.from_row(row | {"time": 1029.9}, row).pause_s == 0.0  # clocks are not exact


def test_a_row_without_times_says_nothing():
    assert StepTime.from_row({"step": 1}, {"step": 0}) == ("", "", 0, 0.0, False, None)


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (TimeLeft(430.4), "ETA 0:07:10"),
        (TimeLeft(3725.0, ("grpo",)), "ETA 1:02:05 + grpo"),
        (TimeLeft(360000.0), "ETA 100:00:00"),
    ],
)
def test_time_left_as_text(left, text):
    assert str(left) == text
