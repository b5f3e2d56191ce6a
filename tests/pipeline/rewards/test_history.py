"""The state of rewards: the history of raw parts, and the states of a user's own rewards."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.config import Config, RewardConfig, validate_config
from pipeline.errors import ClusterError, RewardError
from pipeline.rewards.history import RewardHistory
from pipeline.rewards.registry import RewardContext, StatefulReward
from pipeline.rewards.scoring import Scorer
from pipeline.types import Completion, Problem, RolloutGroup, WeightId
from pipeline.verifier import Verdict

HERE = "tests.pipeline.rewards.test_history"
VERDICT = Verdict("unparsed")


def length(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    return [float(len(completion.text)) for completion in group.completions]


def has_a(group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
    return [float("a" in completion.text) for completion in group.completions]


class Unseen(StatefulReward):
    """1 for a text that no earlier step had. The state is not what JSON gives back: a tuple."""

    state: Any

    def __init__(self, context: RewardContext) -> None:
        self.state = ()

    def __call__(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> list[float]:
        return [float(completion.text not in self.state) for completion in group.completions]

    def next_state(self, groups: Sequence[RolloutGroup]) -> Any:
        return (*self.state, *(completion.text for group in groups for completion in group.completions))


class Grows(Unseen):
    """Changes its state in place."""

    def __init__(self, context: RewardContext) -> None:
        self.state = []

    def next_state(self, groups: Sequence[RolloutGroup]) -> Any:
        self.state.append(len(groups))
        return self.state


class KeepsASet(Unseen):
    def next_state(self, groups: Sequence[RolloutGroup]) -> Any:
        return {"a", "b"}


class KeepsNan(Unseen):
    def next_state(self, groups: Sequence[RolloutGroup]) -> Any:
        return [float("nan")]


class Fails(Unseen):
    def next_state(self, groups: Sequence[RolloutGroup]) -> Any:
        raise KeyError("a")


class HasNone(Unseen):
    def __init__(self, context: RewardContext) -> None: ...


class StartsWithASet(Unseen):
    def __init__(self, context: RewardContext) -> None:
        self.state = {1}


class CannotBeMade(Unseen):
    def __init__(self, context: RewardContext) -> None:
        raise OSError("no such file: words.txt")


class Exits(Unseen):
    def __init__(self, context: RewardContext) -> None:
        raise SystemExit(3)


class AsksAnEngine(Unseen):
    def __init__(self, context: RewardContext) -> None:
        raise ClusterError("an engine did not answer")


def config(*names: str, **reward: Any) -> Config:
    functions = [{"name": f"{HERE}:{name.rstrip('!')}", "gate": name.endswith("!")} for name in names]
    return validate_config({"stages": [{"name": "rl", "kind": "grpo"}], "reward": {"functions": functions, **reward}})


def context(settings: Config) -> RewardContext:
    return RewardContext(settings, list)


def history(settings: Config, state: dict[str, Any] | None = None) -> RewardHistory:
    return RewardHistory(settings.reward, context(settings), state or {})


def scorer(settings: Config) -> Scorer:
    return Scorer(settings.reward, context(settings))


def group(*texts: str) -> RolloutGroup:
    completions = tuple(Completion.of((1,), (-0.5,), text, "stop") for text in texts)
    return RolloutGroup(Problem("p", ({"role": "user", "content": "?"},), "1"), (1,), completions, WeightId(0, 0))


def steps(settings: Config, workers: int, *, resume_after: int | None = None) -> tuple[list[Any], dict[str, Any]]:
    """Totals and the last state of four steps of three groups, that so many workers score in turns."""
    scorers, memory = [scorer(settings) for _ in range(workers)], history(settings)
    found = []
    for step in range(4):
        if step == resume_after:
            memory = history(settings, json.loads(json.dumps(memory.state)))
        groups = [group("a" * (step + place), "b" * place, "ab") for place in range(3)]
        before = memory.state
        scored = [
            replace(one, rewards=scorers[place % workers].score(one, [VERDICT] * 3, before))
            for place, one in enumerate(groups)
        ]
        assert memory.state == before  # one snapshot for the whole step
        memory.advance(scored)
        found.append([[reward.total for reward in one.rewards] for one in scored])
    return found, dict(memory.state)


ALL = config("has_a!", "length", "Unseen", normalize="zscore", zscore={"warmup": 4, "history": 10})


def test_only_what_passes_the_gate_enters_the_history():
    memory, settings = history(ALL), ALL
    one = group("a", "bbbb", "aab")
    memory.advance([replace(one, rewards=scorer(settings).score(one, [VERDICT] * 3))])
    assert memory.state["raw"] == {f"{HERE}:length": [1.0, 3.0], f"{HERE}:Unseen": [1.0, 1.0]}


def test_the_third_step_is_scored_against_the_first_two():
    settings = config("length", normalize="zscore", zscore={"warmup": 2, "std_floor": 0.1, "clip": 10.0})
    worker, memory = scorer(settings), history(settings)
    for texts in (("a",), ("aaaaa",)):
        one = group(*texts)
        memory.advance([replace(one, rewards=worker.score(one, [VERDICT], memory.state))])
    (reward,) = worker.score(group("a" * 8), [VERDICT], memory.state)
    assert reward.total == (8 - np.mean([1, 5])) / np.std([1, 5]) == 2.5
    assert reward.parts == {f"{HERE}:length": 8.0}


@pytest.mark.parametrize(("workers", "resume_after"), [(3, None), (1, 1), (3, 2)])
def test_totals_and_state_are_the_same_with_more_workers_and_after_a_resume(workers, resume_after):
    assert steps(ALL, workers, resume_after=resume_after) == steps(ALL, 1)


def test_the_state_is_what_a_checkpoint_returns():
    _, state = steps(ALL, 1)
    assert json.loads(json.dumps(state)) == state
    assert len(state["rewards"][f"{HERE}:Unseen"]) == 4 * 9 and len(state["raw"][f"{HERE}:length"]) == 10


def test_a_worker_that_outlives_a_run_starts_the_next_one_from_the_beginning():
    settings = config("Unseen")
    worker, one = scorer(settings), group("a")
    assert worker.score(one, [VERDICT], {"rewards": {f"{HERE}:Unseen": ["a"]}})[0].total == 0.0
    assert worker.score(one, [VERDICT], {})[0].total == 1.0
    assert worker.score(one, [VERDICT])[0].total == 1.0


def test_a_reward_that_changes_its_state_in_place_changes_no_other():
    memory = history(config("Grows"))
    states = [memory.state]
    for _ in range(2):
        memory.advance([group("a")])
        states.append(memory.state)
    assert states == [{}, {"rewards": {f"{HERE}:Grows": [1]}}, {"rewards": {f"{HERE}:Grows": [1, 1]}}]


def test_ordinary_rewards_leave_nothing_to_remember():
    memory = RewardHistory(RewardConfig(), context(config("length")), {})
    memory.advance([group("a")])
    assert memory.state == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("KeepsASet", "the state of reward .*KeepsASet' must be a JSON value, got set: .*It is saved"),
        ("KeepsNan", "must be a JSON value, got list: "),
        ("Fails", "reward .*Fails' must return its next state, got KeyError: 'a'"),
    ],
)
def test_a_state_that_cannot_be_saved_is_an_error_of_the_reward(name, message):
    with pytest.raises(RewardError, match=message):
        history(config(name)).advance([group("a")])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HasNone", "HasNone' must set its state in its constructor, got none"),
        ("StartsWithASet", "must be a JSON value, got set"),
        ("CannotBeMade", "CannotBeMade' cannot be made: OSError: no such file: words.txt"),
        ("Exits", "Exits' cannot be made: SystemExit: 3"),
    ],
)
def test_a_reward_that_cannot_start_is_told_when_workers_are_made(name, message):
    for make in (scorer, history):
        with pytest.raises(RewardError, match=message):
            make(config(name))


def test_an_engine_that_does_not_answer_a_constructor_is_no_fault_of_the_reward():
    """A restart may mend it."""
    for make in (scorer, history):
        with pytest.raises(ClusterError, match="an engine did not answer"):
            make(config("AsksAnEngine"))
