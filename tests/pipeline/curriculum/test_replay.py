import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curriculum.replay import ReplayBuffer, ReplayItem
from pipeline.errors import CheckpointError
from pipeline.types import Problem

CHI_SQUARE_99_DF = 148.23
"""A chi-square variable of 99 degrees of freedom is above it once in 1,000 times."""


def items(prefix: str, count: int, level: str | None = None) -> list[ReplayItem]:
    return [ReplayItem(f"{prefix}{index}", level) for index in range(count)]


def levels_of(buffer: ReplayBuffer) -> dict[str | None, int]:
    return dict(Counter(item.level for item in buffer.items))


# Contents of the buffer ---------------------------------------------------------------------------


def test_a_buffer_with_room_holds_everything():
    buffer = ReplayBuffer(10).add(items("a", 4)).add(items("b", 6))
    assert sorted(buffer.items) == sorted(items("a", 4) + items("b", 6))


def test_a_full_buffer_stays_at_its_capacity():
    buffer = ReplayBuffer(50)
    for level in "12345":
        buffer = buffer.add(items(level, 15, level))
        assert len(buffer.items) == min(50, 15 * int(level))


def test_a_problem_offered_twice_counts_once():
    assert ReplayBuffer(10).add(items("a", 3) + items("a", 3)).add(items("a", 2)) == ReplayBuffer(10).add(items("a", 3))


def test_the_best_solve_rate_of_all_offers_is_kept():
    offers = [ReplayItem("a", "1", rate) for rate in (0.5, None, 0.75)]
    for ordered in (offers, offers[::-1]):
        assert ReplayBuffer(10).add(ordered).items == (offers[2],)


def inclusion_counts(num_buffers: int) -> Counter[str]:
    """For each of 100 problems, how many buffers hold it: each of 20, filled in four stages of 25."""
    counts: Counter[str] = Counter()
    stages = [items(stage, 25, stage) for stage in "abcd"]
    for seed in range(num_buffers):
        buffer = ReplayBuffer(20, "reservoir", seed)
        for stage in stages:
            buffer = buffer.add(stage)
        counts.update(item.problem_id for item in buffer.items)
    return counts


def test_every_earlier_problem_has_the_same_chance():
    num_buffers, size, capacity = 1000, 100, 20
    counts = inclusion_counts(num_buffers)
    expected, chance = num_buffers * capacity / size, capacity / size
    # Drawn without replacement: counts of two problems have covariance -p(1-p)/(n-1), which makes this sum, and not
    # Pearson's, a chi-square variable of n-1 degrees of freedom.
    squares = sum((counts[item] - expected) ** 2 for stage in "abcd" for item, *_ in items(stage, 25))
    assert len(counts) == size
    assert squares / (expected * (1 - chance)) * (size - 1) / size < CHI_SQUARE_99_DF
    # By stage: 5,000 of 20,000 expected. The standard deviation of a buffer's count of one stage is
    # sqrt(20 * 1/4 * 3/4 * 80/99) = 1.74, of 1,000 buffers 55.
    for stage in "abcd":
        assert abs(sum(counts[item] for item, *_ in items(stage, 25)) - 5000) < 4 * 55


def test_the_chi_square_test_finds_a_buffer_that_prefers_late_problems():
    counts = Counter({item: 200 for stage in "abcd" for item, *_ in items(stage, 25)})
    for item, *_ in items("a", 25):
        counts[item] -= 30
    for item, *_ in items("d", 25):
        counts[item] += 30
    # 50 deviations of 30: 50 * 900 / 160 * 0.99 = 278
    assert sum((count - 200) ** 2 for count in counts.values()) / 160 * 0.99 > CHI_SQUARE_99_DF


LAWS = settings(max_examples=60, deadline=None, derandomize=True)
SAMPLINGS = st.sampled_from(["reservoir", "by_level"])
OFFERED = st.lists(st.integers(0, 200), max_size=40).map(
    lambda numbers: [ReplayItem(f"p{number}", [None, "1", "2", "10"][number % 7 % 4]) for number in numbers]
)
"""Problems, some of them more than once, of uneven levels."""


@LAWS
@given(OFFERED, st.integers(1, 50), SAMPLINGS, st.data())
def test_the_buffer_does_not_depend_on_the_order_of_what_it_was_offered(offered, capacity, sampling, data):
    at_once = ReplayBuffer(capacity, sampling, 3).add(offered)
    buffer, rest = ReplayBuffer(capacity, sampling, 3), data.draw(st.permutations(offered))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        buffer, rest = buffer.add(rest[:size]), rest[size:]
    assert buffer == at_once


@LAWS
@given(OFFERED, OFFERED, st.integers(1, 50), SAMPLINGS)
def test_offering_problems_again_changes_nothing(offered, more, capacity, sampling):
    buffer = ReplayBuffer(capacity, sampling).add(offered).add(more)
    assert buffer.add(offered) == buffer.add(more) == buffer.add([]) == buffer


@LAWS
@given(OFFERED, st.integers(1, 50), SAMPLINGS)
def test_a_buffer_holds_what_it_was_offered_up_to_its_capacity(offered, capacity, sampling):
    kept = ReplayBuffer(capacity, sampling).add(offered).items
    assert set(kept) <= set(offered) and len(set(kept)) == len(kept) == min(capacity, len(set(offered)))


@LAWS
@given(OFFERED, st.integers(1, 49), SAMPLINGS)
def test_a_smaller_buffer_holds_the_first_of_a_larger_one(offered, capacity, sampling):
    larger = ReplayBuffer(50, sampling).add(offered)
    assert ReplayBuffer(capacity, sampling).add(offered).items == larger.items[:capacity]


@LAWS
@given(OFFERED, st.integers(1, 50))
def test_by_level_levels_differ_by_one_place_unless_one_runs_out(offered, capacity):
    places = levels_of(ReplayBuffer(capacity, "by_level").add(offered))
    num_offered = Counter(item.level for item in set(offered))
    most = max(places.values(), default=0)
    assert all(places.get(level, 0) >= min(count, most - 1) for level, count in num_offered.items())


def test_another_seed_keeps_other_problems():
    kept = [set(ReplayBuffer(50, "reservoir", seed).add(items("a", 100)).items) for seed in (0, 1)]
    assert kept[0] != kept[1]


def test_by_level_gives_every_level_the_same_share():
    buffer = ReplayBuffer(10, "by_level").add(items("a", 50, "1"))
    assert levels_of(buffer) == {"1": 10}
    buffer = buffer.add(items("b", 500, "2"))
    assert levels_of(buffer) == {"1": 5, "2": 5}
    buffer = buffer.add(items("c", 50, "10"))
    assert levels_of(buffer) == {"1": 4, "2": 3, "10": 3}  # the odd place goes to the lowest level


def test_by_level_gives_what_a_small_level_leaves_to_the_others():
    buffer = ReplayBuffer(10, "by_level").add(items("a", 2, "1") + items("b", 50, "2") + items("c", 50, "3"))
    assert levels_of(buffer) == {"1": 2, "2": 4, "3": 4}


# State -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["reservoir", "by_level"])
def test_a_buffer_restored_from_json_continues_the_same(sampling):
    buffer = ReplayBuffer(20, sampling, 7).add(items("a", 40, "1") + items("b", 40, None))
    restored = ReplayBuffer.from_state(json.loads(json.dumps(buffer.to_state())))
    assert restored == buffer
    assert restored.add(items("c", 40, "3")) == buffer.add(items("c", 40, "3"))


def test_a_malformed_state_is_an_error():
    with pytest.raises(CheckpointError, match="replay buffer of a checkpoint cannot be read"):
        ReplayBuffer.from_state({"capacity": 5})


def problem(id: str) -> Problem:
    return Problem(id=id, prompt=({"role": "user", "content": id},), gold="1")


def test_a_buffer_picks_its_problems_from_the_data():
    buffer = ReplayBuffer(10).add(items("a", 3))
    picked = buffer.pick([problem("x"), problem("a0"), problem("a1"), problem("a2")])
    assert [p.id for p in picked] == [item.problem_id for item in buffer.items]
    with pytest.raises(CheckpointError, match="got 1 that it lacks, such as a1: the data changed"):
        buffer.pick([problem("a0"), problem("a2")])
