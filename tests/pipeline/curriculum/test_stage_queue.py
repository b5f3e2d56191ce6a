import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curriculum.halving import QueuedChain
from pipeline.curriculum.stage_queue import StageQueue
from tests.support.searches import DIAMOND, RUNGS, chains, do, ready, score, simulate

# Order -------------------------------------------------------------------------------------------


def test_a_stage_is_ready_when_the_one_before_it_is_done():
    queue = StageQueue(DIAMOND)
    assert ready(queue) == ["s1"]
    queue.start("s1")
    assert ready(queue) == [] and not queue.is_over
    queue.finish("s1", 0.1)
    assert ready(queue) == ["s2", "c2"]
    do(queue, "s2")
    assert sorted(ready(queue)) == ["a3", "b3", "c2"]
    do(queue, "a3", "a4", "b3", "b4", "c2", "c3")
    assert ready(queue) == ["c4"]
    do(queue, "c4", score=0.9)
    assert queue.is_over
    assert queue.outcome()["c"] == {"status": "finished", "num_done": 4, "score": 0.9}


def test_chains_with_most_left_come_first():
    queue = StageQueue([QueuedChain("short", ("x",)), QueuedChain("long", ("y1", "y2", "y3"))])
    assert ready(queue) == ["y1", "x"]


def test_a_shared_stage_is_named_after_the_first_chain_that_has_it():
    queue = StageQueue(DIAMOND)
    do(queue, "s1")
    assert [(stage.chain, stage.index) for stage in queue.ready()] == [("a", 1), ("c", 1)]


def test_a_stage_that_starts_afresh_belongs_to_the_chain_that_can_start_it():
    queue = StageQueue([QueuedChain("forward", ("a", "x")), QueuedChain("reverse", ("x", "b"))])
    assert [(stage.key, stage.chain, stage.index) for stage in queue.ready()] == [
        ("a", "forward", 0),
        ("x", "reverse", 0),
    ]


def test_a_stage_that_is_not_ready_cannot_start():
    queue = StageQueue(DIAMOND)
    queue.start("s1")
    for key in ("s1", "s2", "nonsense"):
        with pytest.raises(ValueError, match="must be ready"):
            queue.start(key)


# Failures ----------------------------------------------------------------------------------------


def test_a_stage_that_fails_is_retried():
    queue = StageQueue(DIAMOND, max_retries=1)
    queue.start("s1")
    queue.fail("s1")
    assert ready(queue) == ["s1"]
    do(queue, "s1")
    assert ready(queue) == ["s2", "c2"]


def test_a_chain_that_keeps_failing_ends_alone():
    queue = StageQueue(DIAMOND, max_retries=1)
    do(queue, "s1", "s2", "a3")
    for _ in range(2):
        queue.start("a4")
        queue.fail("a4")
    assert sorted(ready(queue)) == ["b3", "c2"]
    do(queue, "b3", "b4", "c2", "c3", "c4")
    assert queue.is_over
    assert {name: chain["status"] for name, chain in queue.outcome().items()} == {
        "a": "failed",
        "b": "finished",
        "c": "finished",
    }


def test_a_shared_stage_that_keeps_failing_ends_all_chains_that_need_it():
    queue = StageQueue(DIAMOND, max_retries=0)
    do(queue, "s1")
    queue.start("s2")
    queue.fail("s2")
    do(queue, "c2", "c3", "c4")
    assert queue.is_over and [chain["status"] for chain in queue.outcome().values()] == [
        "failed",
        "failed",
        "finished",
    ]


def test_a_score_must_be_a_number():
    queue = StageQueue(DIAMOND)
    queue.start("s1")
    with pytest.raises(ValueError, match="score of stage s1 must be a number, got nan"):
        queue.finish("s1", float("nan"))


# Any order of completion -------------------------------------------------------------------------

LAWS = settings(max_examples=60, deadline=None, derandomize=True)


@LAWS
@given(chains(), RUNGS, st.data())
def test_the_outcome_does_not_depend_on_the_order_of_completion(searched, rungs, data):
    keys = sorted({key for chain in searched for key in chain.keys})
    broken = frozenset(data.draw(st.lists(st.sampled_from(keys), max_size=2)))
    outcomes, trained = [], []
    for slots in range(1, 5):
        queue = StageQueue(searched, rungs, max_retries=2)
        finished = simulate(queue, random.Random(slots), slots, broken)
        assert len(set(finished)) == len(finished)  # nothing twice
        outcomes.append(queue.outcome())
        trained.append(sorted(finished))
        assert "unfinished" not in {chain["status"] for chain in outcomes[-1].values()}
    assert outcomes == outcomes[:1] * 4 and trained == trained[:1] * 4


@LAWS
@given(chains(), RUNGS, st.lists(st.integers(0, 99), max_size=30))
def test_restoring_scores_equals_replaying_the_stages(searched, rungs, choices):
    replayed, scores = StageQueue(searched, rungs), dict[str, float]()
    for choice in choices:
        if startable := ready(replayed):
            key = startable[choice % len(startable)]
            scores[key] = score(key)
            do(replayed, key, score=scores[key])
    restored = StageQueue(searched, rungs)
    restored.restore(scores)
    assert restored.ready() == replayed.ready() and restored.outcome() == replayed.outcome()


@LAWS
@given(chains(), RUNGS, st.integers(0, 2**32))
def test_a_search_killed_at_any_moment_ends_the_same(searched, rungs, seed):
    whole = StageQueue(searched, rungs)
    simulate(whole, random.Random(0))
    generator, markers = random.Random(seed), dict[str, float]()
    for _ in range(6):  # lives, each killed after a few events; only the markers survive
        queue = StageQueue(searched, rungs)
        queue.restore(markers)
        running: list[str] = []
        for _ in range(generator.randint(0, 4)):
            if (startable := ready(queue)) and generator.random() < 0.6:
                queue.start(key := generator.choice(startable))
                running.append(key)
            elif running:
                key = running.pop(generator.randrange(len(running)))
                assert key not in markers
                markers[key] = score(key)
                if generator.random() < 0.5:
                    break  # killed between the marker and the news of it
                queue.finish(key, score(key))
    last = StageQueue(searched, rungs)
    last.restore(markers)
    finished = simulate(last, generator)
    assert last.outcome() == whole.outcome()
    assert not set(finished) & set(markers)


# State -------------------------------------------------------------------------------------------


def test_the_state_comes_back_from_json():
    queue = StageQueue(DIAMOND, max_retries=1)
    do(queue, "s1", score=0.25)
    queue.start("s2")
    queue.start("c2")
    queue.fail("c2")
    restored = StageQueue(DIAMOND, max_retries=1)
    restored.set_state(json.loads(json.dumps(queue.to_state())))
    assert restored.to_state() == queue.to_state() and ready(restored) == ready(queue) == ["c2"]


def test_running_stages_restart_and_other_searches_are_ignored():
    queue = StageQueue(DIAMOND)
    queue.start("s1")
    queue.restore({"from another search": 0.5})
    assert ready(queue) == ["s1"] and queue.to_state()["scores"] == {}


def test_chains_must_have_names_and_stages():
    for queued in ([], [QueuedChain("a", ())], [QueuedChain("a", ("x",)), QueuedChain("a", ("y",))]):
        with pytest.raises(ValueError, match="different names and at least one stage"):
            StageQueue(queued)
