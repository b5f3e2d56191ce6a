"""A learner's calls to its actors, which are plain objects here: see tests/support/loops.py."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import ray.exceptions
import torch

from actors import calls
from actors.calls import Limit
from actors.engine_loop import Chunk, Decoding, SyncReport
from actors.handles import ActorHandles
from actors.learner.engines import Engines
from actors.learner.ranks import Ranks
from actors.weights import PackedWeights, pack_weights
from pipeline.config import validate_config
from pipeline.curriculum.examples import Example
from pipeline.errors import ClusterError, RewardError
from pipeline.runs.clock import PhaseClock
from pipeline.training.batching import TokenSequence
from pipeline.types import (
    Answer,
    Completion,
    EngineRecord,
    Problem,
    PromptRequest,
    RewardBreakdown,
    RolloutGroup,
    WeightId,
)
from tests.support.loops import LocalHandle, LocalRef, LocalStore, local_ray

T = TypeVar("T")
WEIGHTS = pack_weights([("w", torch.float32, (2,))], [("w", torch.tensor([1.0, 2.0]))])


class EchoEngine:
    """Every completion repeats the prompt, followed by its seed."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self.name, self.calls = name, calls
        self.holds: WeightId | None = None
        self.checksum = WEIGHTS.checksum
        self.written: dict[str, list[tuple[Completion, ...]]] = {}

    def sync(self, weight_id: WeightId) -> SyncReport:
        self.holds = weight_id
        return SyncReport(weight_id, WEIGHTS.checksum, 0.25)

    def complete(self, chunk: Chunk, index: int) -> Answer:
        """A chunk is written by the call for its first request."""
        if index == 0:
            self.written[chunk.id] = self.generate(chunk.weight_id, list(chunk.requests), chunk.decoding)
        assert chunk.weight_id is not None
        record = EngineRecord(self.name, 0, self.checksum, chunk.weight_id.step)
        return Answer(self.written[chunk.id][index], chunk.weight_id, record)

    def generate(
        self, weight_id: WeightId | None, requests: list[PromptRequest], decoding: Decoding
    ) -> list[tuple[Completion, ...]]:
        assert weight_id is not None
        self.calls.append((self.name, weight_id.step, len(requests), decoding.temperature))
        return [
            tuple(Completion.of((*request.prompt_token_ids, seed), (0.0,), "", "stop") for seed in request.seeds)
            for request in requests
        ]


class Grader:
    """The reward is the last token: the seed."""

    shift = 0
    """Groups that an engine began between the answer that is graded here and the one that learners get."""

    def score(
        self, asked: RolloutGroup, answer: Answer, state: Any = None
    ) -> tuple[EngineRecord, tuple[RewardBreakdown, ...]]:
        rewards = tuple(RewardBreakdown(float(each.token_ids[-1]), {}, "correct") for each in answer.completions)
        return answer.record._replace(order=answer.record.order - self.shift), rewards


class RankOne(Ranks):
    """The second of two ranks, which waits for nobody."""

    def __init__(self) -> None:
        self.rank, self.size = 1, 2

    def from_first(self, make: Callable[[], T]) -> T:
        return make()

    def barrier(self) -> None: ...


@pytest.fixture
def parts(monkeypatch) -> SimpleNamespace:
    monkeypatch.setattr(calls, "ray", local_ray())
    log: list[Any] = []
    engines, store, grader = [EchoEngine("a", log), EchoEngine("b", log)], LocalStore(), Grader()
    handles = ActorHandles(tuple(LocalHandle(engine) for engine in engines), (LocalHandle(grader),), LocalHandle(store))
    return SimpleNamespace(handles=handles, engines=engines, store=store, grader=grader, log=log)


def make(parts: SimpleNamespace, ranks: Ranks | None = None, **sections: Any) -> Engines:
    config = validate_config({"stages": [{"name": "rl", "kind": "grpo"}], "grpo": {"batch_size": 4}, **sections})
    return Engines(parts.handles, config, ranks or Ranks())


def examples(count: int) -> list[Example]:
    return [
        Example(Problem(f"p{n}", ({"role": "user", "content": "?"},), "1"), TokenSequence((n, n + 100), ()))
        for n in range(count)
    ]


def test_weights_are_published_once_per_step_and_loaded_into_every_engine(parts):
    engines = make(parts)
    packed = []

    def weights() -> PackedWeights:
        packed.append(1)
        return WEIGHTS

    engines.publish(3, weights)
    engines.publish(3, weights)
    assert len(packed) == 1
    assert engines.weight_id == WeightId(1, 3) == parts.store.held[0]
    assert [engine.holds for engine in parts.engines] == [WeightId(1, 3)] * 2
    engines.start_attempt()  # the same step with other weights
    engines.publish(3, weights)
    assert len(packed) == 2 and engines.weight_id == WeightId(2, 3)


def test_requests_before_weights_are_published_are_an_error(parts):
    with pytest.raises(RuntimeError, match="no weights have been published"):
        make(parts).answer([(1,)], 8)


def test_a_new_attempt_does_not_wait_for_weights_of_the_one_before(parts, monkeypatch):
    """Engines that write what was asked for ahead load weights later. They find those of the new attempt then."""
    engines = make(parts, rollout={"max_staleness": 1})

    def late(weight_id: WeightId) -> SyncReport:
        raise LookupError(f"the store must hold weights {weight_id}")

    for engine in parts.engines:
        monkeypatch.setattr(engine, "sync", late)
    engines.publish(0, lambda: WEIGHTS)
    monkeypatch.undo()
    monkeypatch.setattr(calls, "ray", local_ray())
    engines.start_attempt()
    engines.publish(1, lambda: WEIGHTS)
    engines.publish(2, lambda: WEIGHTS)
    assert engines.weight_id == WeightId(2, 2)


def test_rewards_of_an_answer_that_was_lost_and_written_again_are_refused(parts):
    engines = make(parts)
    engines.publish(0, lambda: WEIGHTS)
    parts.grader.shift = 1
    with pytest.raises(ClusterError, match="completions must be those that were graded"):
        engines.collect(engines.ask(examples(2), [(1,), (2,)]), PhaseClock())


def test_groups_come_back_in_order_with_their_seeds_and_rewards(parts):
    engines = make(parts, rollout={"prompts_per_chunk": 2})
    engines.publish(7, lambda: WEIGHTS)
    seeds = [(10 * n, 10 * n + 1) for n in range(5)]
    groups = engines.collect(engines.ask(examples(5), seeds), PhaseClock())
    assert [group.problem.id for group in groups] == ["p0", "p1", "p2", "p3", "p4"]
    assert [[tuple(c.token_ids) for c in group.completions] for group in groups] == [
        [(n, n + 100, 10 * n), (n, n + 100, 10 * n + 1)] for n in range(5)
    ]
    assert [[reward.total for reward in group.rewards] for group in groups] == [[10 * n, 10 * n + 1] for n in range(5)]
    # Chunks of two prompts, never mixed, dealt to the engines in turn.
    assert parts.log == [("a", 7, 2, 1.0), ("b", 7, 2, 1.0), ("a", 7, 1, 1.0)]


def test_another_rank_publishes_nothing_and_fills_an_engine_of_its_own(parts):
    engines = make(parts, RankOne())
    engines.publish(0, lambda: WEIGHTS)
    assert parts.store.held is None
    engines.collect(engines.ask(examples(2), [(1,), (2,)]), PhaseClock())
    assert parts.log == [("b", 0, 2, 1.0)]  # the other rank has "a": two chunks would take turns in both


@pytest.mark.parametrize(
    ("num_engines", "names"),
    [
        (1, ["0", "0", "0"]),  # a rank's three chunks of two prompts
        (3, ["1", "2", "0"]),
        (4, ["2", "3", "0"]),  # the other rank has 0, 1 and 2
        (6, ["3", "4", "5"]),
    ],
)
def test_ranks_start_as_far_from_each_other_as_they_can(parts, num_engines, names):
    workers = tuple(LocalHandle(EchoEngine(str(index), parts.log)) for index in range(num_engines))
    engines = make(
        SimpleNamespace(handles=replace(parts.handles, rollout_workers=workers)),
        RankOne(),
        rollout={"prompts_per_chunk": 2},
        grpo={"batch_size": 12},
    )
    engines.publish(0, lambda: WEIGHTS)
    engines.ask(examples(6), [(n,) for n in range(6)])
    assert [name for name, *_ in parts.log] == names


def test_held_out_answers_are_greedy_and_in_order(parts):
    engines = make(parts, rollout={"max_num_seqs": 32})
    engines.publish(0, lambda: WEIGHTS)
    prompts = [(n,) for n in range(70)]
    assert [tuple(completion.token_ids) for completion in engines.answer(prompts, 8)] == [(n, 0) for n in range(70)]
    assert parts.log == [("a", 0, 32, 0.0), ("b", 0, 32, 0.0), ("a", 0, 6, 0.0)]  # as wide as an engine
    assert engines.answer([], 8) == []


# Failures ----------------------------------------------------------------------------------------


def failing(error: BaseException) -> Any:
    def answer() -> None:
        raise error

    return LocalRef(answer)


def test_an_error_of_ours_inside_an_actor_is_raised_as_it_is(monkeypatch):
    monkeypatch.setattr(calls, "ray", local_ray())
    cause = RewardError("reward 'x' must give finite values")
    with pytest.raises(RewardError, match="must give finite values"):
        calls.result_of(failing(ray.exceptions.RayTaskError("score", "traceback", cause)), "a grader")


@pytest.mark.parametrize(
    "error",
    [ray.exceptions.RayTaskError("generate", "traceback", KeyError("kv")), ray.exceptions.ActorDiedError()],
    ids=["raised", "died"],
)
def test_any_other_failure_is_one_line_that_names_the_actor(monkeypatch, error):
    monkeypatch.setattr(calls, "ray", local_ray())
    with pytest.raises(ClusterError, match=r"^an engine failed: (KeyError: 'kv'|ActorDiedError: The actor)") as caught:
        calls.result_of(failing(error), "an engine")
    assert "\n" not in str(caught.value)


# Waits -------------------------------------------------------------------------------------------


@pytest.fixture
def restarted(monkeypatch) -> list[Any]:
    """Nothing is ever answered. Holds the actors that were killed so that Ray restarts them."""
    killed: list[Any] = []
    silent = SimpleNamespace(
        wait=lambda refs, num_returns, timeout: ([], refs),
        kill=lambda actor, no_restart: killed.append((actor, no_restart)),
    )
    monkeypatch.setattr(calls, "ray", silent)
    return killed


def silent_call() -> LocalRef:
    return LocalRef(lambda: None)


def test_a_long_wait_says_what_it_waits_for(monkeypatch, capsys):
    first, second = refs = [LocalRef(lambda: 1), LocalRef(lambda: 2)]
    answers = iter([([], refs), ([first], [second])])
    monkeypatch.setattr(calls, "ray", SimpleNamespace(wait=lambda refs, **_: next(answers)))
    assert calls.wait_for(dict.fromkeys(refs), "completions", Limit(100.0, "x")) == [first]  # type: ignore[arg-type, comparison-overlap]
    assert "s for completions (2 calls unanswered) (limit 100 s)" in capsys.readouterr().out


def test_a_wait_ends_in_an_error_and_silent_actors_are_restarted(restarted):
    waits: dict[Any, Any] = {silent_call(): "engine 0", silent_call(): "engine 1"}
    waits[silent_call()] = "engine 1"  # an engine has several calls, and is killed once
    with pytest.raises(ClusterError, match=r"within 0 s, got none of 3\..* raise limits.engine_s$"):
        calls.wait_for(waits, "completions", Limit(0.0, "limits.engine_s"))
    assert sorted(restarted) == [("engine 0", False), ("engine 1", False)]


def test_a_check_while_waiting_can_end_the_wait(restarted):
    def check() -> None:
        raise ClusterError("a node was lost")

    with pytest.raises(ClusterError, match="a node was lost"):
        calls.wait_for({silent_call(): None}, "completions", Limit(100.0, "x"), check)  # type: ignore[arg-type]


def test_the_limit_of_many_calls_starts_again_with_every_answer(monkeypatch):
    refs = [LocalRef(partial(int, n)) for n in range(3)]
    clock = iter(range(0, 1000, 50))  # every look at the clock takes 50 s
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    ready = SimpleNamespace(wait=lambda refs, **_: (refs[-1:], refs[:-1]), get=lambda ref, timeout: ref.answer())
    monkeypatch.setattr(calls, "ray", ready)
    assert calls.results_of(dict.fromkeys(refs), "rewards", "a grader", Limit(60.0, "x")) == [0, 1, 2]  # type: ignore[arg-type]


def test_a_grader_that_never_answers_is_blamed_on_the_plug_in(parts, monkeypatch):
    engines = make(parts)
    engines.publish(0, lambda: WEIGHTS)

    def no_rewards(waits: Any, what: str, *_: Any) -> list[Any]:
        if what == "rewards":
            raise calls.NoAnswerError("rewards must arrive within 5 s, got none of 1")
        return list(waits)

    monkeypatch.setattr(calls, "wait_for", no_rewards)
    with pytest.raises(ClusterError, match="rewards must arrive"):
        engines.collect(engines.ask(examples(1), [(1,)]), PhaseClock())
    engines = make(parts, reward={"functions": [{"name": "format"}, {"name": "my_rewards:slow"}]})
    engines.publish(0, lambda: WEIGHTS)
    with pytest.raises(RewardError, match="one of the reward functions my_rewards:slow blocks"):
        engines.collect(engines.ask(examples(1), [(1,)]), PhaseClock())


# Proof of a sync ---------------------------------------------------------------------------------


def test_every_sync_is_proven_by_the_checksum_of_what_arrived(parts):
    engines = make(parts)
    engines.publish(0, lambda: WEIGHTS)
    assert engines.sync_metrics() == {"weights_checksum": WEIGHTS.checksum, "engine_probe_diff": 0.25}
    other = pack_weights([("w", torch.float32, (2,))], [("w", torch.tensor([1.0, 3.0]))])
    with pytest.raises(
        ClusterError, match=f"engines must hold weights {other.checksum} of step 1, got {WEIGHTS.checksum}"
    ):
        engines.publish(1, lambda: other)


def test_groups_of_other_weights_than_were_published_are_refused(parts):
    engines = make(parts)
    engines.publish(0, lambda: WEIGHTS)
    parts.engines[0].checksum = "0123456789abcdef"
    with pytest.raises(ClusterError, match=f"engines must hold weights {WEIGHTS.checksum} of step 0, got 0123456789"):
        engines.collect(engines.ask(examples(1), [(1,)]), PhaseClock())


def test_nothing_is_packed_without_engines(parts):
    engines = make(SimpleNamespace(handles=replace(parts.handles, rollout_workers=())))
    engines.publish(0, lambda: pytest.fail("packed"))
    assert parts.store.held is None and engines.sync_metrics() == {}
