from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.seeds import completion_seeds, derive_seed, item_at

LAWS = settings(max_examples=60, deadline=None, derandomize=True)
SIZES, SEEDS = st.integers(1, 60), st.integers(0, 2**63)


def batch_at(items, batch_size, step, *seed):
    return [item_at(items, position, *seed) for position in range(step * batch_size, (step + 1) * batch_size)]


# Orders ------------------------------------------------------------------------------------------


@LAWS
@given(SIZES, st.integers(0, 10**6), SEEDS)
def test_every_pass_uses_every_item_once(size, number, seed):
    assert sorted(batch_at(range(size), size, number, seed)) == list(range(size))


@LAWS
@given(SIZES, SEEDS, st.data())
def test_an_item_does_not_depend_on_what_was_asked_before(size, seed, data):
    positions = data.draw(st.lists(st.integers(0, 8 * size), max_size=40))
    in_order = {position: item_at(range(size), position, seed) for position in sorted(positions)}
    assert [item_at(range(size), position, seed) for position in positions] == [in_order[p] for p in positions]


def test_every_pass_has_a_new_order():
    items = list(range(12))
    passes = [batch_at(items, 12, number, 0) for number in range(4)]
    assert len({tuple(one) for one in passes}) == 4
    assert items not in passes


def test_a_batch_spans_two_passes():
    drawn = [item for step in range(10) for item in batch_at("abcde", 3, step, 0)]  # 30 positions: 6 passes of 5
    assert all(sorted(drawn[start : start + 5]) == list("abcde") for start in range(0, 30, 5))


def test_a_batch_larger_than_the_data_repeats_it():
    assert Counter(batch_at("ab", 6, 0, 0)) == {"a": 3, "b": 3}


def test_draws_in_other_orders_in_between_change_nothing():
    items = list(range(50))
    in_order = [batch_at(items, 8, step, 7, "grpo") for step in range(20)]
    for other in range(9):
        batch_at(list(range(other + 1)), 3, other, other)
    assert batch_at(items, 8, 13, 7, "grpo") == in_order[13]
    assert [batch_at(items, 8, step, 7, "grpo") for step in reversed(range(20))][::-1] == in_order


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


@LAWS
@given(SEEDS, st.integers(0, 1000), st.sampled_from(["", "train-1", "train-2"]), st.integers(1, 8), st.integers(1, 8))
def test_a_larger_group_keeps_the_seeds_of_a_smaller_one(seed, step, problem, size, more):
    larger = completion_seeds(seed, step, problem, size + more)
    assert larger[:size] == completion_seeds(seed, step, problem, size)
    assert all(0 <= one < 2**31 for one in larger)


def test_parts_of_a_seed_do_not_run_together():
    assert derive_seed("ab", "c") != derive_seed("a", "bc")
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert 0 <= derive_seed() < 2**63
