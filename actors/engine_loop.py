"""The life of an engine: one thread that takes up requests, steps the engine by hand, and loads weights in between.

Chunks are taken up in the order in which they come, but urgent ones before others: learners wait for these, while what
they asked for ahead is for later steps. A chunk that is to be alone waits until the engine is idle, and
nothing is taken up beside it: its answers depend on nothing else. Others are taken up as soon as there is room for
them. Weights are loaded when the engine is idle or, with in-flight updates, between two steps.
"""

import os
import queue
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np

from actors.weights import PackedWeights
from pipeline.config import EngineConfig
from pipeline.types import Answer, Completion, EngineRecord, PromptRequest, WeightId

T = TypeVar("T")
REMEMBERED_CHUNKS = 64
"""Answered chunks that are kept: the call of one of their requests may still be on its way."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """Sampling settings of a request."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    max_completion_length: int = 256
    stop: tuple[str, ...] = ()
    """Texts that end a completion and are not part of it."""

    @classmethod
    def from_config(cls, config: EngineConfig) -> "Decoding":
        return cls(config.temperature, config.top_p, config.top_k, config.max_completion_length)


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Proof of the weights that an engine loaded."""

    weight_id: WeightId
    checksum: str
    """Checksum of the weights as they arrived."""
    probe_diff: float | None
    """Mean absolute difference between the engine's log-probabilities of the probe and the learner's. Measured with the
    first weights that an engine loads; None before."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Requests that an engine takes up together."""

    id: str
    """The same in a repeated call, so that an engine answers it once."""
    weight_id: WeightId | None
    """The oldest weights to answer with. None: those that the engine has, as one whose weights never change."""
    requests: tuple[PromptRequest, ...]
    decoding: Decoding
    alone: bool
    """Nothing else runs in the engine meanwhile."""
    is_urgent: bool = False
    """A learner waits for the answers, and has nothing else to do meanwhile."""

    @property
    def num_sequences(self) -> int:
        return sum(len(request.seeds) for request in self.requests)


class Engine(Protocol):
    """The parts of vLLM that the loop uses. All calls come from the loop's thread."""

    def add(self, key: int, prompt: Sequence[int], seed: int, decoding: Decoding) -> None:
        """Begin a completion."""

    def step(self) -> list[tuple[int, Completion]]:
        """Decode one token of every running completion. Returns those that are complete, by key."""

    def num_tokens(self, key: int) -> int:
        """Tokens written so far of a running completion."""

    def load(self, weights: PackedWeights) -> float | None:
        """Load weights; completions may be running. From here on, nothing that was computed with other weights may be
        reused. Returns the probe's difference, measured with the first weights that have a probe."""

    def reset_cache(self) -> None:
        """Forget the prompts of completed requests. Called only when nothing runs."""

    def close(self) -> None: ...


@dataclass
class _Writing:
    """A request that is being answered."""

    future: Future[Answer]
    weight_id: WeightId | None
    checksum: str | None
    order: int
    completions: list[Completion | None]
    started: float = field(default_factory=time.perf_counter)


@dataclass
class _Running:
    """A completion that is being written."""

    request: _Writing
    place: int
    """Among the request's completions."""
    changes: list[tuple[int, int]] = field(default_factory=list)
    """(tokens written before, version) of every change of weights since it began."""


class EngineLoop:
    """Runs an engine in a thread of its own. Its methods may be called from any thread.

    Args:
        start: makes the engine, in that thread.
        pull: fetches weights that are the given ones or newer ones of the same attempt.
        max_num_seqs: completions written at once, unless a chunk is to be alone.
        in_flight_updates: load weights while completions are being written.
        failed: called with an exception of the engine, after which the engine must not be used. Returns the error
            that every unanswered call gets.
    """

    def __init__(
        self,
        start: Callable[[], Engine],
        pull: Callable[[WeightId], tuple[WeightId, PackedWeights]],
        max_num_seqs: int,
        in_flight_updates: bool,
        failed: Callable[[Exception], Exception],
    ) -> None:
        self._start, self._pull, self._failed = start, pull, failed
        self._max_num_seqs, self._in_flight = max_num_seqs, in_flight_updates
        self._name = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns() // 10**6}"
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, list[Future[Answer]]] = OrderedDict()
        self._waiting: deque[tuple[Chunk, list[Future[Answer]]]] = deque()
        self._syncs: deque[tuple[WeightId | None, Future[SyncReport | None]]] = deque()
        self._running: dict[int, _Running] = {}
        self._is_alone = self._closed = False
        self._held: WeightId | None = None
        self._error: Exception | None = None
        self._report: SyncReport | None = None
        self._num_keys = self._num_groups = 0
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="engine", daemon=True)
        self._thread.start()
        started.result()

    def sync(self, weight_id: WeightId | None) -> "Future[SyncReport | None]":
        """The report on these weights or newer ones, once they are loaded. None: the report on what is loaded now."""
        future: Future[SyncReport | None] = _uncancelled(Future())
        with self._lock:
            self._raise_if_failed()
            self._inbox.put(lambda: self._syncs.append((weight_id, future)))
        return future

    def submit(self, chunk: Chunk) -> list["Future[Answer]"]:
        """The answers to each request of a chunk, as they are written. A chunk that is submitted again gets the same
        ones."""
        with self._lock:
            self._raise_if_failed()
            if chunk.id in self._answers:
                return self._answers[chunk.id]
            futures: list[Future[Answer]] = [_uncancelled(Future()) for _ in chunk.requests]
            self._answers[chunk.id] = futures
            answered = [id for id, each in self._answers.items() if all(future.done() for future in each)]
            for id in answered[:-REMEMBERED_CHUNKS]:
                del self._answers[id]
            self._inbox.put(lambda: self._enqueue(_parts(chunk, futures)))
        return futures

    def _enqueue(self, parts: Sequence[tuple[Chunk, list["Future[Answer]"]]]) -> None:
        self._waiting = deque(sorted([*self._waiting, *parts], key=lambda part: not part[0].is_urgent))

    def _raise_if_failed(self) -> None:
        if self._error:
            raise self._error

    def close(self) -> None:
        """Shut the engine down and end the thread."""
        self._inbox.put(lambda: setattr(self, "_closed", True))
        self._thread.join(timeout=60)

    def _run(self, started: "Future[None]") -> None:
        try:
            self._engine = self._start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        while not self._closed:
            self._receive()
            try:
                self._load_if_due()
                self._take_up()
                if self._running:
                    self._step()
            except Exception as error:
                self._fail(self._failed(error))
                return
        self._engine.close()

    def _receive(self) -> None:
        """Take what came meanwhile; wait for something if there is nothing to do."""
        idle = not (self._running or self._waiting or self._syncs)
        while idle or not self._inbox.empty():
            self._inbox.get()()
            idle = False

    def _due(self) -> WeightId | None:
        """The weights to load before anything else is taken up; None if those held will do."""
        asked = [weight_id for weight_id, _ in self._syncs]
        asked += [chunk.weight_id for chunk, _ in islice(self._waiting, 1)]
        missing = [each for each in asked if each is not None and not is_as_new(self._held, each)]
        return max(missing, default=None)

    def _load_if_due(self) -> None:
        due = self._due()
        if due is not None and (self._in_flight or not self._running):
            self._load(due)
        while self._syncs and is_as_new(self._held, self._syncs[0][0]):
            self._syncs.popleft()[1].set_result(self._report)

    def _load(self, due: WeightId) -> None:
        try:
            weight_id, weights = self._pull(due)
        except Exception as error:
            return self._refuse(due, error)
        probe_diff = self._engine.load(weights)
        if probe_diff is None and self._report:
            probe_diff = self._report.probe_diff
        self._report, self._held = SyncReport(weight_id, weights.checksum, probe_diff), weight_id
        for key, running in self._running.items():
            running.changes.append((self._engine.num_tokens(key), weight_id.step))

    def _refuse(self, due: WeightId, error: Exception) -> None:
        """These weights cannot be had: whoever wants them is told, and the others go on."""
        refused: list[Future[Any]] = [future for weight_id, future in self._syncs if weight_id == due]
        self._syncs = deque(each for each in self._syncs if each[0] != due)
        refused += [future for chunk, futures in self._waiting if chunk.weight_id == due for future in futures]
        self._waiting = deque(each for each in self._waiting if each[0].weight_id != due)
        for future in refused:
            future.set_exception(error)

    def _take_up(self) -> None:
        """Begin waiting chunks, in order, while there is room and the weights are right."""
        while self._waiting and self._due() is None and not self._is_alone:
            chunk, futures = self._waiting[0]
            room = self._max_num_seqs - len(self._running)
            if self._running and (chunk.alone or chunk.num_sequences > room):
                return
            self._waiting.popleft()
            if chunk.alone:
                self._engine.reset_cache()
            self._is_alone = chunk.alone and chunk.num_sequences > 0
            for request, future in zip(chunk.requests, futures, strict=True):
                self._begin(request, chunk.decoding, future)

    def _begin(self, request: PromptRequest, decoding: Decoding, future: "Future[Answer]") -> None:
        checksum = self._report.checksum if self._report else None
        writing = _Writing(future, self._held, checksum, self._num_groups, [None] * len(request.seeds))
        self._num_groups += 1
        if not request.seeds:
            future.set_result(self._answer(writing, ()))
        for place, seed in enumerate(request.seeds):
            self._num_keys += 1
            self._running[self._num_keys] = _Running(writing, place)
            self._engine.add(self._num_keys, request.prompt_token_ids, seed, decoding)

    def _step(self) -> None:
        for key, completion in self._engine.step():
            running = self._running.pop(key)
            writing = running.request
            begun_with = writing.weight_id.step if writing.weight_id else 0
            writing.completions[running.place] = _with_versions(completion, begun_with, running.changes)
            completions = tuple(each for each in writing.completions if each is not None)
            if len(completions) == len(writing.completions):
                writing.future.set_result(self._answer(writing, completions))
        self._is_alone = self._is_alone and bool(self._running)

    def _answer(self, writing: _Writing, completions: tuple[Completion, ...]) -> Answer:
        newest = writing.weight_id.step if writing.weight_id else 0
        newest = max([newest, *(int(each.versions[-1]) for each in completions if each.versions is not None)])
        record = EngineRecord(self._name, writing.order, writing.checksum, newest)
        return Answer(completions, writing.weight_id, record, time.perf_counter() - writing.started)

    def _fail(self, error: Exception) -> None:
        """Every call that is unanswered fails with this error."""
        with self._lock:
            self._error = error
        while not self._inbox.empty():
            self._inbox.get()()
        unanswered: list[Future[Any]] = [future for _, future in self._syncs]
        unanswered += [future for _, futures in self._waiting for future in futures]
        unanswered += [running.request.future for running in self._running.values()]
        for future in unanswered:
            if not future.done():
                future.set_exception(error)


def _uncancelled(future: "Future[T]") -> "Future[T]":
    """A caller that gives up must not cancel what the engine's thread will set."""
    future.set_running_or_notify_cancel()
    return future


def _parts(chunk: Chunk, futures: list["Future[Answer]"]) -> list[tuple[Chunk, list["Future[Answer]"]]]:
    """A chunk that need not be alone is taken up request by request."""
    if chunk.alone:
        return [(chunk, futures)]
    return [(replace(chunk, requests=(each,)), [own]) for each, own in zip(chunk.requests, futures, strict=True)]


def is_as_new(held: WeightId | None, asked: WeightId | None) -> bool:
    """True if an engine that holds the weights ``held`` may answer a request for ``asked``."""
    return asked is None or (held is not None and held.attempt == asked.attempt and held.step >= asked.step)


def _with_versions(completion: Completion, begun_with: int, changes: Sequence[tuple[int, int]]) -> Completion:
    """The completion with the version of every token, if weights changed while it was written."""
    num_tokens = len(completion.token_ids)
    if not any(before < num_tokens for before, _ in changes):
        return completion
    versions = np.full(num_tokens, begun_with, dtype=np.int32)
    for before, version in changes:
        versions[before:] = version
    return replace(completion, versions=versions)
