import math

import pytest

from pipeline.config import GRPOConfig, OptimizerConfig, ProblemFilter, SFTConfig
from pipeline.data.selection import select_problems
from pipeline.training.schedules import eval_steps, learning_rate, num_steps
from pipeline.types import Problem

# Learning rate -----------------------------------------------------------------------------------


def rates(total, **settings):
    return [learning_rate(OptimizerConfig(learning_rate=1.0, **settings), step, total) for step in range(total)]


def test_warm_up_rises_linearly_to_the_full_rate():
    assert rates(8, warmup_ratio=0.5) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0])


def test_linear_goes_to_zero():
    assert rates(5, lr_schedule="linear") == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    # 2 steps of warm-up, then 4 steps down
    assert rates(6, lr_schedule="linear", warmup_ratio=1 / 3) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_cosine_goes_to_zero():
    # cos 0, pi/4, pi/2, 3 pi/4
    root = math.sqrt(0.5)
    assert rates(4, lr_schedule="cosine") == pytest.approx([1.0, (1 + root) / 2, 0.5, (1 - root) / 2])
    assert rates(4, lr_schedule="cosine", warmup_ratio=0.5) == pytest.approx([0.5, 1.0, 1.0, 0.5])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_single_step_has_the_full_rate(schedule):
    assert rates(1, lr_schedule=schedule) == [1.0]


def test_after_the_last_step_the_rate_would_be_zero():
    for schedule in ("linear", "cosine"):
        settings = OptimizerConfig(learning_rate=1.0, lr_schedule=schedule)
        assert learning_rate(settings, 10, 10) == pytest.approx(0.0)


# Steps and problems ------------------------------------------------------------------------------


def test_sft_steps_are_passes_over_the_examples():
    assert num_steps(SFTConfig(num_train_epochs=1.0), 16, 64) == 4
    assert num_steps(SFTConfig(num_train_epochs=1.0), 16, 65) == 5  # the last batch continues into the next pass
    assert num_steps(SFTConfig(num_train_epochs=0.5), 16, 64) == 2
    assert num_steps(SFTConfig(num_train_epochs=3.0), 16, 8) == 2  # 24 examples
    assert num_steps(SFTConfig(num_train_epochs=3.0, max_steps=7), 16, 1000) == 7
    assert num_steps(SFTConfig(num_train_epochs=1.0, max_steps=7), 16, 16) == 1


def test_fractions_of_a_pass_are_not_rounded_up_by_floats():
    assert num_steps(SFTConfig(num_train_epochs=1.1), 10, 100) == 11


def test_grpo_steps_do_not_depend_on_the_data():
    assert num_steps(GRPOConfig(num_iterations=3, num_steps=20), 8, 5) == 60


def problem(id: str, level: str | None = None, type: str | None = None, source: str = "") -> Problem:
    return Problem(id=id, prompt=({"role": "user", "content": id},), gold="1", level=level, type=type, source=source)


PROBLEMS = [
    problem("a", "1", "sum", "gsm8k"),
    problem("b", "2", "sum", "math"),
    problem("c", "1", "algebra", "math"),
    problem("d", "1", "sum", "math"),
    problem("e"),
    problem("f"),
]


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({}, "abcdef"),
        ({"levels": ["1"]}, "acd"),
        ({"levels": ["2", "1"]}, "abcd"),  # in data set order, whatever the order of levels
        ({"types": ["sum"]}, "abd"),
        ({"sources": ["math"]}, "bcd"),
        ({"levels": ["1"], "types": ["sum"], "sources": ["math"]}, "d"),
        ({"max_per_level": 1}, "abe"),  # problems without a level count as one level
        ({"max_per_level": 2}, "abcef"),
        ({"types": ["sum"], "max_per_level": 1}, "ab"),  # counted after the other filters
        ({"levels": ["7"]}, ""),
        ({"levels": []}, ""),
    ],
)
def test_select_problems(chosen, ids):
    assert "".join(p.id for p in select_problems(PROBLEMS, ProblemFilter(**chosen))) == ids


def test_evaluations_are_spread_evenly_and_the_last_step_is_one():
    assert eval_steps(3, 8) == {3, 6, 8}
    assert eval_steps(30, 2803) >= {94, 187, 2803}
    assert len(eval_steps(30, 2803)) == 30
    assert eval_steps(30, 4) == {1, 2, 3, 4}
    assert eval_steps(0, 8) == set()


def test_evaluations_every_so_many_steps_and_at_the_end():
    assert eval_steps(0, 8, 3) == {3, 6, 8}
    assert eval_steps(0, 6, 3) == {3, 6}
    assert eval_steps(0, 2, 3) == {2}
    assert eval_steps(0, 3, 1) == {1, 2, 3}
