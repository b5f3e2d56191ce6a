from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curriculum.mixture import Mixture, mix
from pipeline.seeds import item_at

NEW, OLD = [f"n{index}" for index in range(40)], [f"o{index}" for index in range(100)]
LAWS = settings(max_examples=60, deadline=None, derandomize=True)


def examples(mixture: Mixture[str]) -> list[str]:
    return [mixture.at(position) for position in range(mixture.num_examples)]


def of(kind: str, drawn: list[str]) -> list[str]:
    """The new (n) or the old (o) examples, in order."""
    return [name for name in drawn if name.startswith(kind)]


@pytest.mark.parametrize(
    ("ratio", "num_examples", "num_replayed"),
    [(0.0, 100, 0), (0.1, 100, 10), (0.3, 100, 30), (0.3, 7, 2), (0.5, 192, 96), (0.3, 64, 19), (0.99, 10, 10)],
)
def test_the_ratio_is_exact(ratio, num_examples, num_replayed):
    assert len(of("o", examples(mix(NEW, OLD, ratio, num_examples, 0)))) == num_replayed


def test_a_small_buffer_is_used_in_several_passes():
    drawn = Counter(of("o", examples(mix(NEW, OLD[:4], 0.5, 20, 0))))
    assert sorted(drawn.values()) == [2, 2, 3, 3]  # 10 of 4


def test_a_large_buffer_repeats_nothing():
    drawn = Counter(of("o", examples(mix(NEW, OLD, 0.5, 200, 0))))
    assert sorted(drawn.values()) == [1] * 100


def test_every_new_example_comes_once_before_one_comes_twice():
    drawn = Counter(of("n", examples(mix(NEW, OLD, 0.2, 75, 0))))
    assert sorted(drawn.values()) == [1] * 20 + [2] * 20  # 60 of 40


def test_an_empty_buffer_replays_nothing():
    assert mix(NEW, [], 0.3, 100, 0).num_replayed == 0


@pytest.mark.parametrize(("ratio", "num_replayed"), [(0.3, [1, 1, 1, 1, 2, 1, 1, 1, 1, 2]), (0.25, [1] * 10)])
def test_replayed_examples_are_spread_evenly_over_the_batches(ratio, num_replayed):
    # 12 of 40 in batches of 4: 1.2 each. 10 of 40: 1 each.
    mixture = mix(NEW, OLD, ratio, 40, 0)
    assert [len(of("o", mixture.batch(4, step))) for step in range(10)] == num_replayed


def test_without_replay_the_batches_are_the_plain_ones():
    mixture = mix(NEW, [], 0.3, 120, 5, "stage")
    for step in range(12):
        assert mixture.batch(10, step) == [
            item_at(NEW, position, 5, "stage") for position in range(10 * step, 10 * step + 10)
        ]


def test_batches_depend_on_the_seed_alone():
    first, same, other = (mix(NEW, OLD, 0.3, 100, seed).batch(50, 1) for seed in (0, 0, 1))
    assert first == same != other


def test_steps_after_the_last_keep_the_share():
    mixture = mix(NEW, OLD, 0.3, 100, 0)
    assert sum(len(of("o", mixture.batch(10, step))) for step in (10, 11, 12)) == 9


# Laws --------------------------------------------------------------------------------------------

RATIOS = st.floats(0, 0.99)
SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32)


@LAWS
@given(RATIOS, st.integers(1, 200), st.integers(0, 300), st.integers(1, 60), SEEDS)
def test_any_window_holds_its_share_rounded_down_or_up(ratio, num_examples, start, size, seed):
    mixture = mix(NEW, OLD, ratio, num_examples, seed)
    share, rest = divmod(size * mixture.num_replayed, num_examples)
    num_replayed = len(of("o", [mixture.at(position) for position in range(start, start + size)]))
    assert num_replayed in ({share, share + 1} if rest else {share})


@LAWS
@given(RATIOS, SIZES, SIZES, SEEDS)
def test_new_examples_come_in_the_same_order_at_every_ratio(ratio, num_new, num_old, seed):
    plain = examples(mix(NEW[:num_new], [], 0.0, 80, seed))
    replaying = of("n", examples(mix(NEW[:num_new], OLD[:num_old], ratio, 80, seed)))
    assert replaying == plain[: len(replaying)]


@LAWS
@given(RATIOS, SIZES, SIZES, SEEDS)
def test_replayed_examples_do_not_depend_on_the_new_ones(ratio, num_new, num_old, seed):
    alone, beside = (mix(NEW[:size], OLD[:num_old], ratio, 80, seed) for size in (1, num_new))
    assert of("o", examples(alone)) == of("o", examples(beside))


@LAWS
@given(RATIOS, SIZES, st.integers(0, 200), SEEDS)
def test_the_rows_trained_so_far_are_those_of_the_new_examples_so_far(ratio, num_new, num_positions, seed):
    mixture = mix(NEW[:num_new], OLD, ratio, 100, seed)
    seen = of("n", [mixture.at(position) for position in range(num_positions)])
    assert [mixture.new[row] for row in mixture.new_rows_until(num_positions)] == list(dict.fromkeys(seen))


PINNED = [
    ["n29", "n2", "n5", "o54", "n34", "n14", "o32", "n26", "n13", "o67"],
    ["n27", "n20", "n25", "o9", "n36", "n33", "o65", "n17", "n16", "o5"],
]
LEVELS = ["1"] * 4 + ["2"] * 10 + ["3"] * 26


def test_levels_in_turn_have_equal_shares_of_every_batch():
    mixture = mix(NEW, [], 0.0, 60, 0, levels=LEVELS)
    level = dict(zip(NEW, LEVELS, strict=True))
    for step in range(10):
        assert Counter(level[name] for name in mixture.batch(6, step)) == {"1": 2, "2": 2, "3": 2}


def test_a_small_level_comes_back_sooner_and_in_another_order():
    drawn = examples(mix(NEW, [], 0.0, 60, 0, levels=LEVELS))  # 20 of each level
    turns = [drawn[place::3] for place in range(3)]
    assert Counter(turns[0]) == dict.fromkeys(NEW[:4], 5)
    assert Counter(turns[1]) == dict.fromkeys(NEW[4:14], 2)
    assert len(set(turns[2])) == 20
    assert len({tuple(turns[0][start : start + 4]) for start in range(0, 20, 4)}) > 1


def test_new_rows_in_turn_are_counted_once_in_training_order():
    mixture = mix(NEW, [], 0.0, 60, 0, levels=LEVELS)
    drawn = [NEW.index(name) for name in examples(mixture)]
    assert mixture.new_rows_until(30) == list(dict.fromkeys(drawn[:30]))
    assert sorted(mixture.new_rows_until(3 * 26)) == list(range(40))  # after 26 turns of the largest level
    assert sorted(mixture.new_rows_until(1000)) == list(range(40))


def test_levels_in_turn_and_replay_keep_both_shares():
    mixture = mix(NEW, OLD, 0.25, 40, 0, levels=LEVELS)
    level = dict(zip(NEW, LEVELS, strict=True))
    assert len(of("o", examples(mixture))) == 10
    assert Counter(level[name] for name in of("n", examples(mixture))) == {"1": 10, "2": 10, "3": 10}


def test_the_order_without_levels_is_the_one_it_has_always_been():
    """Seeded curves of earlier versions depend on it."""
    drawn = [mix(NEW, OLD, 0.3, 40, 7, "stage").batch(10, step) for step in (0, 3)]
    assert drawn == PINNED
