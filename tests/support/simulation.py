"""Engines and learners whose work takes time on a clock of their own, without Ray, vLLM or a model.

WorkAhead, Engines and EngineLoop are the real ones. Their threads take turns: one runs until it works or waits, and
time passes when all of them do. So a simulation takes milliseconds, and its times are exact and always the same.
"""

import heapq
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import ray.exceptions
import torch

from actors import calls, engine_loop
from actors.engine_loop import Decoding, EngineLoop
from actors.handles import ActorHandles
from actors.learner.engines import Engines
from actors.learner.ranks import Ranks
from actors.learner.work_ahead import WorkAhead
from actors.weights import PackedWeights, pack_weights
from pipeline.config import Config, HeldOutConfig
from pipeline.curriculum.examples import Example
from pipeline.curriculum.schedule import StageSchedule
from pipeline.runs.checkpoints import Progress
from pipeline.runs.clock import PhaseClock
from pipeline.training.batching import TokenSequence
from pipeline.types import Answer, Completion, EngineRecord, Problem, RewardBreakdown, RolloutGroup, WeightId
from tests.support.loops import LocalStore

T = TypeVar("T")
WAIT_S = 120
"""Of real time, for a turn: enough on a machine that does much else."""


class SimulatedClock:
    """The time of a simulation, whose threads take turns. It belongs to the thread that makes it."""

    def __init__(self) -> None:
        self.now = 0
        self.is_stopped = False
        self._turns: dict[int, threading.Semaphore] = {}
        self._new: set[int] = set()
        """Threads that have not had a turn yet."""
        self._late: set[int] = set()
        """Threads that go on after those that go on at the same time."""
        self._due: list[tuple[int, bool, int, int]] = []
        """A heap of times and the threads that go on then, in this order: those that are not late, first come."""
        self._waiting: list[tuple[Callable[[], bool], int]] = []
        self._entries = itertools.count()
        self._turns[threading.get_ident()] = threading.Semaphore(0)

    def join(self, late: bool = False) -> None:
        """The calling thread takes part: its next call of the clock returns when it is its turn."""
        thread = threading.get_ident()
        if late:
            self._late.add(thread)
        self._turns[thread] = threading.Semaphore(0)
        self._new.add(thread)
        self._enter(thread, self.now)

    def work(self, duration: int) -> None:
        """Let time pass."""
        self._begin()
        self._enter(threading.get_ident(), self.now + duration)
        self._hand_over()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Let others work until something is so, which only they can bring about."""
        self.wait(condition)
        if not condition():
            raise RuntimeError("the simulation has ended: all of its threads wait for each other")

    def wait(self, condition: Callable[[], bool]) -> None:
        """Like ``wait_for``, but returns too when the simulation has ended."""
        self._begin()
        if not condition():
            self._waiting.append((condition, threading.get_ident()))
            self._hand_over()

    def run(self, *works: Callable[[], T]) -> list[T]:
        """The results of several pieces of work, each in a thread of its own."""
        results: list[Future[T]] = [Future() for _ in works]
        for work, result in zip(works, results, strict=True):
            joined = threading.Event()
            threading.Thread(target=self._run, args=(work, result, joined), daemon=True).start()
            joined.wait(WAIT_S)
        self.wait(lambda: all(result.done() for result in results))
        return [result.result(WAIT_S) for result in results]

    def stop(self) -> None:
        """End the turns: all threads go on at once."""
        self.is_stopped = True
        for turn in self._turns.values():
            turn.release()

    def _run(self, work: Callable[[], T], result: "Future[T]", joined: threading.Event) -> None:
        self.join()
        joined.set()
        self._begin()
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)
        self._pass_on()

    def _enter(self, thread: int, time: int) -> None:
        heapq.heappush(self._due, (time, thread in self._late, next(self._entries), thread))

    def _begin(self) -> None:
        thread = threading.get_ident()
        if thread in self._new:
            self._new.remove(thread)
            self._await_turn()

    def _hand_over(self) -> None:
        if not self.is_stopped:
            self._pass_on()
            self._await_turn()

    def _await_turn(self) -> None:
        if not self._turns[threading.get_ident()].acquire(timeout=WAIT_S):
            raise TimeoutError(f"a turn must come within {WAIT_S} s")

    def _pass_on(self) -> None:
        for entry in [each for each in self._waiting if each[0]()]:
            self._waiting.remove(entry)
            self._enter(entry[1], self.now)
        if not self._due:
            return self.stop()
        self.now, _, _, thread = heapq.heappop(self._due)
        self._turns[thread].release()


class SimulatedQueue:
    """Stands for the inbox of an EngineLoop: whoever waits for something to come lets others have their turns."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put, self.empty = self._items.put, self._items.empty

    def get(self) -> Any:
        self._clock.wait(lambda: not self.empty())
        return self._items.get()


class SimulatedEngine:
    """An engine whose every step takes the same time, however many completions it writes a token of.

    Args:
        length: tokens of the completion of a seed.
    """

    def __init__(self, clock: SimulatedClock, step_time: int, length: Callable[[int], int]) -> None:
        self._clock, self._step_time, self._length = clock, step_time, length
        self._running: dict[int, list[int]] = {}
        self.begun: list[tuple[int, int]] = []
        """Seeds of all completions, in the order in which they were begun, and the learner whose weights it had."""
        self.loaded: list[tuple[int, int]] = []
        """Learner and step of all weights, in their order."""

    def join(self) -> "SimulatedEngine":
        """The engine, whose loop takes up what learners ask for at the same time before it begins a step."""
        self._clock.join(late=True)
        return self

    def add(self, key: int, prompt: Sequence[int], seed: int, decoding: Decoding) -> None:
        self.begun.append((seed, self.loaded[-1][0]))
        self._running[key] = [0, self._length(seed)]

    def step(self) -> list[tuple[int, Completion]]:
        self._clock.work(self._step_time)
        for written in self._running.values():
            written[0] += 1
        done = [key for key, (num_tokens, length) in self._running.items() if num_tokens == length]
        return [(key, _completion(self._running.pop(key)[1])) for key in done]

    def num_tokens(self, key: int) -> int:
        return self._running[key][0]

    def load(self, weights: PackedWeights) -> float | None:
        learner, step = next(weights.tensors())[1].tolist()
        self.loaded.append((learner, step))
        return None

    def reset_cache(self) -> None:
        assert not self._running

    def close(self) -> None: ...


def _completion(length: int) -> Completion:
    return Completion.of((7,) * length, (-1.0,) * length, "")


class SimulatedRanks(Ranks):
    """One of several learners in this process. The list is shared by them."""

    def __init__(self, clock: SimulatedClock, rank: int, size: int, meetings: list[Any]) -> None:
        self.rank, self.size = rank, size
        self._clock, self._meetings, self._num_meetings = clock, meetings, 0

    def from_first(self, make: Callable[[], T]) -> T:
        self._num_meetings += 1
        if self.is_first:
            self._meetings.append((make(), [0]))
        self._clock.wait_for(lambda: len(self._meetings) >= self._num_meetings)
        value, arrived = self._meetings[self._num_meetings - 1]
        arrived[0] += 1
        self._clock.wait_for(lambda: arrived[0] == self.size)
        result: T = value
        return result

    def barrier(self) -> None:
        self.from_first(lambda: None)

    def gather(self, items: list[T]) -> list[T]:
        parts: dict[int, list[T]] = self.from_first(dict)
        parts[self.rank] = items
        self._clock.wait_for(lambda: len(parts) == self.size)
        return [item for rank in range(self.size) for item in parts[rank]]


class SimulatedStore(LocalStore):
    """A weight store that holds the newest weights only, and gives them to whoever asks for older ones of the same
    attempt."""

    def pull(self, weight_id: WeightId) -> tuple[WeightId, PackedWeights]:
        if self.held is None or self.held[0].attempt != weight_id.attempt or self.held[0] < weight_id:
            raise LookupError(f"the store must hold weights {weight_id}, got {self.held and self.held[0]}")
        return self.held


@dataclass
class SimulatedStep:
    """The groups and times of a learner's step."""

    step: int
    """Updates behind its weights."""
    asked: int
    """Updates behind them when it asked."""
    groups: list[RolloutGroup]
    """Of all ranks."""


@dataclass
class SimulatedLearner:
    """One rank of a learner, with the parts of a session that WorkAhead uses."""

    session: Any
    clock: SimulatedClock
    number: int
    update_time: int
    source: WorkAhead = field(init=False)

    def __post_init__(self) -> None:
        self.source = WorkAhead(self.session)

    def steps(self, num_steps: int) -> list[SimulatedStep]:
        """Take steps as grpo_loop does."""
        progress, taken = self.session.progress, []
        self.publish(progress.step)
        for _ in range(num_steps):
            rollouts = self.source.take(progress.stage_step)
            taken.append(SimulatedStep(progress.step, rollouts.asked_steps[0], rollouts.groups))
            self.clock.work(self.update_time)
            self.publish(progress.step + 1)
            progress.step, progress.stage_step = progress.step + 1, progress.stage_step + 1
        return taken

    def publish(self, step: int) -> None:
        self.session.engines.publish(step, lambda: packed(self.number, step))


def packed(learner: int, step: int) -> PackedWeights:
    return pack_weights([("w", torch.int64, (2,))], [("w", torch.tensor([learner, step]))])


class Simulation:
    """Engines, a grader that takes no time, a store, and one learner after another.

    Args:
        config: of a job with one GRPO stage.
        step_time: of an engine.
        update_time: of a learner.
        length: tokens of the completion of a seed.
    """

    def __init__(self, config: Config, step_time: int, update_time: int, length: Callable[[int], int]) -> None:
        self.config, self.clock, self.store = config, SimulatedClock(), SimulatedStore()
        self._update_time = update_time
        self.engines = [SimulatedEngine(self.clock, step_time, length) for _ in range(config.rollout.num_workers)]
        self.loops: list[EngineLoop] = []
        self._num_learners = 0
        self.answers: list[Future[Answer]] = []
        """To all requests."""

    def start(self) -> None:
        rollout = self.config.rollout
        for engine in self.engines:
            loop = EngineLoop(
                engine.join, self.store.pull, rollout.width, rollout.in_flight_updates, lambda error: error
            )
            self.loops.append(loop)

    def stop(self) -> None:
        self.clock.stop()
        for loop in self.loops:
            loop.close()

    def learner(self, num_steps: int, done: int = 0) -> list[SimulatedLearner]:
        """The ranks of a new learner, whose stage has one pass of so many steps and begins after ``done`` of them."""
        self._num_learners += 1
        size, meetings = self.config.learner.num_workers, []  # type: ignore[var-annotated]
        ranks = [SimulatedRanks(self.clock, rank, size, meetings) for rank in range(size)]
        sessions = self.clock.run(*(partial(self._session, each, num_steps, done) for each in ranks))
        return [SimulatedLearner(each, self.clock, self._num_learners, self._update_time) for each in sessions]

    def steps(self, learner: Sequence[SimulatedLearner], num_steps: int) -> list[SimulatedStep]:
        """The steps of a learner, over all its ranks."""
        taken = self.clock.run(*(partial(rank.steps, num_steps) for rank in learner))
        return [
            SimulatedStep(parts[0].step, parts[0].asked, [group for part in parts for group in part.groups])
            for parts in zip(*taken, strict=True)
        ]

    def _session(self, ranks: Ranks, num_steps: int, done: int) -> Any:
        (stage,) = self.config.stages
        settings, progress = self.config.stage_settings(stage), Progress(stage.name, stage_step=done, step=done)
        return SimpleNamespace(
            config=self.config,
            stage=stage,
            settings=settings,
            progress=progress,
            schedule=StageSchedule(progress, settings, num_steps, HeldOutConfig()),
            examples=SimpleNamespace(batch=lambda step: batch(step, self.config.grpo.batch_size)),
            ranks=ranks,
            rewards=SimpleNamespace(state={}),
            clock=PhaseClock(),
            engines=Engines(self._handles(), self.config, ranks),
        )

    def _publish(self, weight_id: WeightId, weights: PackedWeights) -> Any:
        self.store.publish(weight_id, weights)
        return _done(None)

    def _handles(self) -> ActorHandles:
        store = SimpleNamespace(
            next_attempt=_method(lambda: _done(self.store.next_attempt())),
            publish=_method(self._publish),
        )
        grader = SimpleNamespace(score=_method(lambda group, answer, state: Grade(answer)))
        workers = tuple(
            SimpleNamespace(sync=_method(loop.sync), complete=_method(partial(self._complete, loop)))
            for loop in self.loops
        )
        return ActorHandles(workers, (grader,), store)

    def _complete(self, loop: EngineLoop, chunk: "Future[Any]", index: int) -> "Future[Answer]":
        self.answers.append(loop.submit(chunk.result())[index])
        return self.answers[-1]


def batch(step: int, size: int) -> list[Example]:
    names = [f"p{step * size + place}" for place in range(size)]
    return [Example(Problem(name, (), "1"), TokenSequence((1,), ())) for name in names]


@dataclass(frozen=True)
class Grade:
    """The rewards of an answer, as soon as it is there: the numbers of tokens."""

    answer: "Future[Answer]"

    def done(self) -> bool:
        return self.answer.done()

    def result(self, timeout: float) -> tuple[EngineRecord, tuple[RewardBreakdown, ...]]:
        answer = self.answer.result(timeout)
        rewards = tuple(RewardBreakdown(float(len(each.token_ids)), {}, "correct") for each in answer.completions)
        return answer.record, rewards


def _method(call: Callable[..., Any]) -> Any:
    return SimpleNamespace(remote=call)


def _done(value: T) -> "Future[T]":
    future: Future[T] = Future()
    future.set_result(value)
    return future


def simulated_ray(clock: SimulatedClock) -> Any:
    """Stands for the ``ray`` that actors/calls.py uses."""

    def wait(refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        clock.wait_for(lambda: any(ref.done() for ref in refs))
        return [ref for ref in refs if ref.done()], [ref for ref in refs if not ref.done()]

    def get(ref: Any, timeout: float) -> Any:
        try:
            return ref.result(timeout=0)
        except LookupError as error:
            raise ray.exceptions.RayTaskError("remote", str(error), error) from error

    return SimpleNamespace(wait=wait, get=get, put=_done, exceptions=ray.exceptions)


def simulations(patch: pytest.MonkeyPatch) -> Iterator[Callable[..., Simulation]]:
    """Starts simulations, and stops them in the end."""
    started: list[Simulation] = []

    def start(*arguments: Any, **named: Any) -> Simulation:
        simulation = Simulation(*arguments, **named)
        patch.setattr(engine_loop, "queue", SimpleNamespace(SimpleQueue=lambda: SimulatedQueue(simulation.clock)))
        patch.setattr(calls, "ray", simulated_ray(simulation.clock))
        simulation.start()
        started.append(simulation)
        return simulation

    yield start
    for simulation in started:
        simulation.stop()
