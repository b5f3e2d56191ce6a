"""The solver of written problems, with a stand-in for the engine that answers."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from actors import calls, solver
from actors.engine_loop import Decoding
from actors.solver import EngineNames, Solver, make_solver
from pipeline.config import Config, validate_config
from pipeline.errors import ClusterError
from pipeline.types import Completion, Problem, PromptRequest, RolloutGroup, WeightId
from tests.support.loops import LocalHandle, local_ray

NAMES = EngineNames("exp_1", "_2")


class StandInEngine:
    """Answers every request with its seeds, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[WeightId | None, list[PromptRequest], Decoding]] = []

    def generate(
        self, weight_id: WeightId | None, requests: list[PromptRequest], decoding: Decoding
    ) -> list[tuple[Completion, ...]]:
        self.asked.append((weight_id, requests, decoding))
        return [tuple(Completion.of((seed,), (-0.5,), str(seed), "stop") for seed in each.seeds) for each in requests]


@pytest.fixture
def engines(monkeypatch) -> dict[str, StandInEngine]:
    """By the names under which they were asked for."""
    found: dict[str, StandInEngine] = {}

    def get_actor(name: str) -> LocalHandle:
        return LocalHandle(found.setdefault(name, StandInEngine()))

    monkeypatch.setattr(calls, "ray", local_ray())
    monkeypatch.setattr(solver, "ray", SimpleNamespace(get_actor=get_actor))
    return found


def config(tiny_model: Any, **settings: Any) -> Config:
    return validate_config(
        {
            "model": {"name": str(tiny_model), "dtype": "float32"},
            "stages": [{"name": "rl", "kind": "grpo"}],
            "data": {"system_prompt": ""},
            "rollout": {"max_prompt_length": 40},
            "questions": {
                "solver": {"num_samples": 3, "temperature": 0.7, "max_completion_length": 9, **settings},
            },
        }
    )


def group(id: str = "p0", attempt: int = 7, step: int = 5) -> RolloutGroup:
    return RolloutGroup(Problem(id, ({"role": "user", "content": "Write."},), ""), (1,), (), WeightId(attempt, step))


def seeds(solve: Solver, asked: RolloutGroup, *statements: str) -> list[tuple[int, ...]]:
    return [tuple(completion.token_ids[0] for completion in found) for found in solve(asked, statements)]


def test_without_a_solver_nobody_is_asked():
    assert make_solver(validate_config({"stages": [{"name": "rl", "kind": "grpo"}]}), NAMES, 1) is None


def test_the_policy_solves_with_the_weights_of_the_group(tiny_model, engines):
    solve = make_solver(config(tiny_model), NAMES, 1)
    assert solve is not None
    assert [len(found) for found in solve(group(), ["1+1?", "2+2?"])] == [3, 3]
    assert list(engines) == ["rollout-exp_1_2-0"]
    ((weight_id, requests, decoding),) = engines["rollout-exp_1_2-0"].asked
    assert weight_id == WeightId(7, 5) and decoding == Decoding(0.7, max_completion_length=9)
    texts = [bytes(token for token in request.prompt_token_ids if token < 256) for request in requests]
    assert len(requests) == 2 and texts[0] != texts[1]


def test_a_frozen_model_is_asked_without_weights(tiny_model, engines):
    solve = Solver(config(tiny_model, model=str(tiny_model)), NAMES, 1)
    solve(group(), ["1+1?"])
    (name,) = engines
    assert name == f"frozen-exp_1_2-{tiny_model}"
    assert engines[name].asked[0][0] is None


def test_every_statement_and_sample_has_a_seed_of_its_own(tiny_model, engines):
    found = seeds(Solver(config(tiny_model), NAMES, 1), group(), "1+1?", "1+1?")
    assert len({seed for row in found for seed in row}) == 6


def test_seeds_depend_on_problem_and_step_but_not_on_the_attempt(tiny_model, engines):
    solve = Solver(config(tiny_model), NAMES, 1)
    first = seeds(solve, group(), "1+1?")
    assert seeds(solve, group(attempt=8), "1+1?") == first  # a resumed run publishes under a new attempt
    assert seeds(solve, group(step=6), "1+1?") != first != seeds(solve, group(id="p1"), "1+1?")


def test_a_statement_that_is_too_long_has_no_solutions(tiny_model, engines):
    solve = Solver(config(tiny_model), NAMES, 1)
    long = "1" * 41
    whole = seeds(solve, group(), "1+1?", "1+1?", "3+3?")
    assert seeds(solve, group(), "1+1?", long, "3+3?") == [whole[0], (), whole[2]]
    asked = len(engines["rollout-exp_1_2-0"].asked)
    assert solve(group(), [long]) == [()] and len(engines["rollout-exp_1_2-0"].asked) == asked


def test_groups_are_spread_over_engines_by_their_problem(tiny_model, engines):
    solve = Solver(config(tiny_model), NAMES, 2)
    for index in range(8):
        for _ in range(2):
            solve(group(f"p{index}"), ["1+1?"])
    assert sorted(engines) == ["rollout-exp_1_2-0", "rollout-exp_1_2-1"]
    assert all(len(engine.asked) % 2 == 0 for engine in engines.values())


def test_it_travels_to_workers_before_its_first_use(tiny_model, engines):
    solve = Solver(config(tiny_model), NAMES, 1)
    copy = pickle.loads(pickle.dumps(solve))
    assert seeds(copy, group(), "1+1?") == seeds(solve, group(), "1+1?")


def test_an_engine_that_is_gone_is_a_failure_of_the_cluster(tiny_model, monkeypatch):
    def get_actor(name: str) -> LocalHandle:
        raise ValueError(f"Failed to look up actor with name '{name}'")

    monkeypatch.setattr(solver, "ray", SimpleNamespace(get_actor=get_actor))
    with pytest.raises(ClusterError, match="the solver's engine must be there"):
        Solver(config(tiny_model), NAMES, 1)(group(), ["1?"])
