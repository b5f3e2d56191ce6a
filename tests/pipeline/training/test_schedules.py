import math
from collections import Counter
from itertools import pairwise

import pytest

from pipeline.config import GRPOConfig, OptimizerConfig, ProblemFilter, SFTConfig
from pipeline.curriculum.replay import mix
from pipeline.data.selection import select_problems
from pipeline.seeds import completion_seeds, derive_seed
from pipeline.training.schedules import eval_steps, learning_rate, num_steps
from pipeline.types import Problem

# Batches -----------------------------------------------------------------------------------------


def batch_at(items, batch_size, step, *seed):
    """Without replay."""
    return [item for item, _ in mix(items, [], 0.3, 1, *seed).batch(batch_size, step)]


def test_every_pass_uses_every_item_once_in_a_new_order():
    items = list(range(12))
    passes = [[item for step in range(3) for item in batch_at(items, 4, 3 * n + step, 0)] for n in range(4)]
    assert all(sorted(one) == items for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    assert items not in passes


def test_a_batch_spans_two_passes():
    drawn = [item for step in range(10) for item in batch_at("abcde", 3, step, 0)]  # 30 positions: 6 passes of 5
    assert all(sorted(drawn[start : start + 5]) == list("abcde") for start in range(0, 30, 5))


def test_a_batch_larger_than_the_data_repeats_it():
    assert Counter(batch_at("ab", 6, 0, 0)) == {"a": 3, "b": 3}


def test_a_step_does_not_depend_on_what_was_drawn_before():
    items = list(range(50))
    in_order = [batch_at(items, 8, step, 7, "grpo") for step in range(20)]
    backwards = [batch_at(items, 8, step, 7, "grpo") for step in reversed(range(20))]
    for other in range(9):
        batch_at(list(range(other + 1)), 3, other, other)  # other draws in between
    assert backwards[::-1] == in_order
    assert batch_at(items, 8, 13, 7, "grpo") == in_order[13]


def test_seed_and_stage_choose_the_order():
    items = list(range(50))
    orders = [batch_at(items, 50, 0, seed, stage) for seed in (0, 1) for stage in ("a", "b")]
    assert len({tuple(order) for order in orders}) == 4


# Seeds -------------------------------------------------------------------------------------------


def test_seeds_are_the_same_on_every_machine():
    # printf '0\x1f3\x1fp1' | sha256sum begins with adf93c12759f40dc: 64 bits, of which the last is dropped
    assert derive_seed(0, 3, "p1") == 0xADF93C12759F40DC >> 1
    assert batch_at("abcdefgh", 8, 0, 0, "grpo") == list("ehdfcbag")
    assert completion_seeds(0, 3, "p1", 2) == (2090409901, 897266856)


def test_seeds_of_neighbours_have_nothing_in_common():
    # vLLM gives children s, s + 1, ...: neighbours one apart would repeat the noise.
    seeds = [
        seed
        for run in range(3)
        for step in range(10)
        for problem in ("train-1", "train-2")
        for seed in completion_seeds(run, step, problem, 8)
    ]
    assert len(set(seeds)) == len(seeds) == 480
    assert all(0 <= seed < 2**31 for seed in seeds)
    # 480 seeds out of 2^31 come within 8 of each other about 480 x 479 / 2 x 16 / 2^31 = 0.0009 times.
    ordered = sorted(seeds)
    assert min(b - a for a, b in pairwise(ordered)) > 8


def test_a_larger_group_keeps_the_seeds_of_a_smaller_one():
    assert completion_seeds(0, 0, "p", 8)[:4] == completion_seeds(0, 0, "p", 4)


def test_parts_of_a_seed_do_not_run_together():
    assert derive_seed("ab", "c") != derive_seed("a", "bc")
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert 0 <= derive_seed() < 2**63


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
    assert num_steps(SFTConfig(num_train_epochs=1.0), 16, 65) == 5  # the last batch goes on into the next pass
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
