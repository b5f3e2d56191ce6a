"""A learner's calls to its actors, which are plain objects here: see tests/support/loops.py."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
import torch

from actors import calls
from actors.handles import ActorHandles
from actors.learner.engines import Engines
from actors.learner.ranks import Ranks
from actors.rollout import Decoding
from pipeline.config import RolloutConfig
from pipeline.curriculum.examples import Example
from pipeline.errors import ClusterError, RewardError
from pipeline.runs.clock import PhaseClock
from pipeline.training.batching import TokenSequence
from pipeline.types import Completion, Problem, PromptRequest, RewardBreakdown, RolloutGroup, WeightId
from tests.support.loops import LocalHandle, LocalRef, LocalStore, local_ray

WEIGHTS = [("w", torch.tensor([1.0, 2.0]))]


class EchoEngine:
    """Every completion repeats the prompt, followed by its seed."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self.name, self.calls = name, calls
        self.holds: WeightId | None = None

    def sync(self, weight_id: WeightId) -> float:
        self.holds = weight_id
        return 0.0

    def generate(
        self, weight_id: WeightId, requests: list[PromptRequest], decoding: Decoding
    ) -> list[tuple[Completion, ...]]:
        self.calls.append((self.name, weight_id.step, len(requests), decoding.temperature))
        return [
            tuple(Completion((*request.prompt_token_ids, seed), (0.0,), "", "stop") for seed in request.seeds)
            for request in requests
        ]


class Grader:
    """The reward is the last token: the seed."""

    def score(self, groups: list[RolloutGroup]) -> list[RolloutGroup]:
        return [
            RolloutGroup(
                group.problem,
                group.prompt_token_ids,
                group.completions,
                group.weight_id,
                tuple(RewardBreakdown(c.token_ids[-1], {}, "correct") for c in group.completions),
            )
            for group in groups
        ]


class RankOne(Ranks):
    def __init__(self) -> None:
        self.rank, self.size = 1, 1


@pytest.fixture
def parts(monkeypatch) -> SimpleNamespace:
    monkeypatch.setattr(calls, "ray", local_ray())
    log: list[Any] = []
    engines, store, grader = [EchoEngine("a", log), EchoEngine("b", log)], LocalStore(), Grader()
    handles = ActorHandles(tuple(LocalHandle(engine) for engine in engines), (LocalHandle(grader),), LocalHandle(store))
    return SimpleNamespace(handles=handles, engines=engines, store=store, grader=grader, log=log)


def make(parts: SimpleNamespace, ranks: Ranks | None = None, **settings: Any) -> Engines:
    return Engines(parts.handles, RolloutConfig.model_validate(settings), ranks or Ranks())


def examples(count: int) -> list[Example]:
    return [
        Example(Problem(f"p{n}", ({"role": "user", "content": "?"},), "1"), TokenSequence((n, n + 100), ()))
        for n in range(count)
    ]


def test_weights_are_published_once_per_step_and_loaded_into_every_engine(parts):
    engines = make(parts)
    packed = []

    def weights() -> list[tuple[str, torch.Tensor]]:
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


def test_groups_come_back_in_order_with_their_seeds_and_rewards(parts):
    engines = make(parts, prompts_per_chunk=2)
    engines.publish(7, lambda: WEIGHTS)
    seeds = [(10 * n, 10 * n + 1) for n in range(5)]
    groups = engines.collect(examples(5), seeds, PhaseClock())
    assert [group.problem.id for group in groups] == ["p0", "p1", "p2", "p3", "p4"]
    assert [[c.token_ids for c in group.completions] for group in groups] == [
        [(n, n + 100, 10 * n), (n, n + 100, 10 * n + 1)] for n in range(5)
    ]
    assert [[reward.total for reward in group.rewards] for group in groups] == [[10 * n, 10 * n + 1] for n in range(5)]
    # Chunks of two prompts, never mixed, dealt to the engines in turn.
    assert parts.log == [("a", 7, 2, 1.0), ("b", 7, 2, 1.0), ("a", 7, 1, 1.0)]


def test_another_rank_starts_with_another_engine_and_publishes_nothing(parts):
    engines = make(parts, RankOne(), prompts_per_chunk=2)
    engines.publish(0, lambda: WEIGHTS)
    assert parts.store.held is None
    engines.collect(examples(2), [(1,), (2,)], PhaseClock())
    assert [name for name, *_ in parts.log] == ["b"]


def test_held_out_answers_are_greedy_and_in_order(parts):
    engines = make(parts)
    engines.publish(0, lambda: WEIGHTS)
    prompts = [(n,) for n in range(70)]
    assert [completion.token_ids for completion in engines.answer(prompts, 8)] == [(n, 0) for n in range(70)]
    assert parts.log == [("a", 0, 32, 0.0), ("b", 0, 32, 0.0), ("a", 0, 6, 0.0)]
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


def test_a_long_wait_says_what_it_waits_for(monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    first, second = refs = [LocalRef(lambda: 1), LocalRef(lambda: 2)]
    answers = iter([([], refs), ([first], [second])])
    monkeypatch.setattr(calls, "ray", SimpleNamespace(wait=lambda refs, **_: next(answers)))
    assert calls.wait_for(refs, "completions") == [first]  # type: ignore[arg-type, comparison-overlap]
    assert "waiting for completions: 2 of 2 still pending" in caplog.text
