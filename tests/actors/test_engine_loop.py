"""The life of an engine, on one that writes a token per step and completion, until each has as many as its seed."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from actors.engine_loop import Chunk, Decoding, EngineLoop, SyncReport
from actors.weights import PackedWeights, pack_weights
from pipeline.types import Completion, PromptRequest, WeightId

WAIT_S = 20


class CountingEngine:
    """Steps only when it is told to. Records what it is asked, in order."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.steps = threading.Semaphore(0)
        self.running: dict[int, list[int]] = {}
        self.failure: Exception | None = None

    def add(self, key: int, prompt: Sequence[int], seed: int, decoding: Decoding) -> None:
        self.log.append(("add", seed))
        self.running[key] = [0, seed]

    def step(self) -> list[tuple[int, Completion]]:
        assert self.steps.acquire(timeout=WAIT_S)
        if self.failure:
            raise self.failure
        for count in self.running.values():
            count[0] += 1
        done = [key for key, (count, length) in self.running.items() if count == length]
        self.log += [("done", self.running.pop(key)[1]) for key in done]
        return [(key, Completion.of((7,) * 3, (-1.0,) * 3, "")) for key in done]

    def num_tokens(self, key: int) -> int:
        return self.running[key][0]

    def load(self, weights: PackedWeights) -> float | None:
        self.log.append(("load", float(next(weights.tensors())[1])))
        return None

    def reset_cache(self) -> None:
        assert not self.running

    def close(self) -> None: ...


def packed(step: int) -> PackedWeights:
    return pack_weights([("w", torch.float32, ())], [("w", torch.tensor(float(step)))])


class Store:
    """Holds the newest weights of attempt 1."""

    step = 0

    def pull(self, weight_id: WeightId) -> tuple[WeightId, PackedWeights]:
        if weight_id.attempt != 1:
            raise LookupError(f"no weights {weight_id}")
        return WeightId(1, self.step), packed(self.step)


Start = Callable[..., EngineLoop]


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def start(engine, store) -> Iterator[Start]:
    loops = []

    def begin(width: int = 4, in_flight: bool = False) -> EngineLoop:
        loops.append(EngineLoop(lambda: engine, store.pull, width, in_flight, lambda error: error))
        return loops[-1]

    yield begin
    engine.steps.release(1000)
    for loop in loops:
        loop.close()


def chunk(name: str, *lengths: tuple[int, ...], alone: bool = False, version: int | None = None) -> Chunk:
    """A request for each tuple; a completion of as many steps as each number says."""
    requests = tuple(PromptRequest((1,), seeds) for seeds in lengths)
    weight_id = None if version is None else WeightId(1, version)
    return Chunk(name, weight_id, requests, Decoding(1.0), alone)


def finish(engine: CountingEngine, futures: Sequence[Any]) -> list[Any]:
    engine.steps.release(100)
    return [future.result(timeout=WAIT_S) for future in futures]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it did not happen")


def test_a_request_is_answered_when_all_its_completions_are_written_whatever_else_runs(engine, start):
    short, long = start().submit(chunk("a", (1, 2), (9,)))
    engine.steps.release(2)
    answer = short.result(timeout=WAIT_S)
    assert len(answer.completions) == 2 and not long.done()
    assert finish(engine, [long])[0].record.order == 1


def test_requests_are_taken_up_in_order_as_there_is_room(engine, start):
    loop = start(width=2)
    first = loop.submit(chunk("a", (1, 4)))
    finish(engine, [*first, *loop.submit(chunk("b", (1,))), *loop.submit(chunk("c", (1,)))])
    # One step frees a place, which the next one takes while the long completion goes on.
    order = [event for event in engine.log if event != ("add", 4)]
    assert order == [("add", 1), ("done", 1), ("add", 1), ("done", 1), ("add", 1), ("done", 1), ("done", 4)]


@pytest.mark.parametrize("alone", [False, True])
def test_urgent_requests_go_before_what_was_asked_for_ahead(engine, start, alone):
    loop = start(width=1)
    ahead = [loop.submit(chunk(name, (length,), alone=alone)) for name, length in (("a", 1), ("b", 2), ("c", 3))]
    wait_for(lambda: ("add", 1) in engine.log)
    urgent = [
        loop.submit(replace(chunk(name, (length,), alone=alone), is_urgent=True))
        for name, length in (("d", 4), ("e", 5))
    ]
    finish(engine, [future for each in (*ahead, *urgent) for future in each])
    assert [length for event, length in engine.log if event == "add"] == [1, 4, 5, 2, 3]


def test_a_wide_chunk_that_need_not_be_alone_is_taken_up_request_by_request(engine, start):
    finish(engine, start(width=2).submit(chunk("a", (1,), (3,), (1,))))
    assert engine.log == [("add", 1), ("add", 3), ("done", 1), ("add", 1), ("done", 1), ("done", 3)]


def test_a_chunk_that_is_to_be_alone_shares_the_engine_with_nothing(engine, start):
    loop = start(width=2)
    answers = [loop.submit(chunk(name, (2,), (3,), (1,), alone=True)) for name in "ab"]
    finish(engine, [future for each in answers for future in each])
    one = [("add", 2), ("add", 3), ("add", 1), ("done", 1), ("done", 2), ("done", 3)]
    assert engine.log == one * 2  # all of it at once, though it is wider than the engine


def test_a_request_for_nothing_is_answered_at_once(engine, start):
    loop = start()
    assert finish(engine, loop.submit(chunk("a", (), alone=True)))[0].completions == ()
    assert len(finish(engine, loop.submit(chunk("b", (2,))))) == 1  # the engine goes on


def test_a_chunk_that_is_asked_for_again_is_answered_once(engine, start):
    loop = start()
    first, again = loop.submit(chunk("a", (2,))), loop.submit(chunk("a", (2,)))
    assert finish(engine, first) == finish(engine, again)
    assert finish(engine, loop.submit(chunk("a", (2,)))) == finish(engine, first)
    assert engine.log == [("add", 2), ("done", 2)]


def test_weights_are_loaded_before_a_request_that_needs_them_and_while_nothing_runs(engine, store, start):
    loop = start()
    old = loop.submit(chunk("a", (3,), version=0))
    wait_for(lambda: ("add", 3) in engine.log)
    store.step = 1
    synced, new = loop.sync(WeightId(1, 1)), loop.submit(chunk("b", (2,), version=0))
    (answer,) = finish(engine, old)
    assert answer.weight_id == WeightId(1, 0) and answer.completions[0].versions is None
    assert synced.result(timeout=WAIT_S) == SyncReport(WeightId(1, 1), packed(1).checksum, None)
    (later,) = finish(engine, new)
    assert later.weight_id == WeightId(1, 1)  # newer weights than it asked for, as they were there
    assert (later.record.checksum, later.record.newest_step) == (packed(1).checksum, 1)
    assert engine.log == [("load", 0.0), ("add", 3), ("done", 3), ("load", 1.0), ("add", 2), ("done", 2)]


def test_weights_in_flight_give_every_token_its_version(engine, store, start):
    loop = start(in_flight=True)
    (writing,) = loop.submit(chunk("a", (3,), version=0))
    wait_for(lambda: ("add", 3) in engine.log)
    engine.steps.release(1)
    wait_for(lambda: engine.running != {} and next(iter(engine.running.values()))[0] == 1)
    store.step = 5
    synced = loop.sync(WeightId(1, 5))
    engine.steps.release(1)  # the step that was under way
    assert synced.result(timeout=WAIT_S).weight_id == WeightId(1, 5)
    (answer,) = finish(engine, [writing])
    assert np.array_equal(answer.completions[0].versions, [0, 0, 5])
    assert answer.weight_id == WeightId(1, 0) and answer.record.newest_step == 5


def test_weights_that_cannot_be_had_fail_those_who_want_them_and_no_others(engine, start):
    loop = start()
    lost, synced = loop.submit(Chunk("x", WeightId(9, 0), (PromptRequest((1,), (1,)),), Decoding(1.0), False)), None
    synced = loop.sync(WeightId(9, 0))
    for future in (*lost, synced):
        with pytest.raises(LookupError, match="no weights"):
            future.result(timeout=WAIT_S)
    assert len(finish(engine, loop.submit(chunk("a", (2,), version=0)))) == 1


def test_a_failure_of_the_engine_reaches_every_call_even_later_ones(engine, start):
    loop = start(width=1)
    calls = [*loop.submit(chunk("a", (3,))), *loop.submit(chunk("b", (3,)))]
    engine.failure = RuntimeError("no blocks")
    engine.steps.release(1)
    for future in calls:
        with pytest.raises(RuntimeError, match="no blocks"):
            future.result(timeout=WAIT_S)
    with pytest.raises(RuntimeError, match="no blocks"):
        loop.submit(chunk("c", (1,)))
    with pytest.raises(RuntimeError, match="no blocks"):
        loop.sync(None)


def test_an_engine_that_does_not_start_says_why(store):
    def fail() -> Any:
        raise OSError("no model")

    with pytest.raises(OSError, match="no model"):
        EngineLoop(fail, store.pull, 4, False, lambda error: error)
