"""The solver of a job that does not train."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.driver import engine_solver
from actors.driver.engine_solver import EngineSolver, OtherSolver, find_solver
from pipeline.config import Config, ModelConfig
from pipeline.config.generation import GenerationConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.types import Completion, Problem, RolloutGroup, WeightId

GROUP = RolloutGroup(Problem("p", ({"role": "user", "content": "Write."},), "1"), (1,), (), WeightId(0, 0))


CONFIG = GenerationConfig.model_validate({"run": "RUN", "rollout": {"num_workers": 3, "num_cpus": 2}})


def run_config(policy: Path, solver: dict[str, Any] | None) -> Config:
    settings = {
        "model": {"name": str(policy), "device": "cpu"},
        "questions": {"solver": solver},
        "rollout": {"max_prompt_length": 300},
        "stages": [{"name": "rl", "kind": "grpo"}],
    }
    return Config.model_validate(settings)


def solved(requests, decodings):
    """Two completions for each request; the text says how many tokens its prompt has."""
    ((chunk,), (decoding,)) = requests, decodings
    assert decoding.max_completion_length == 16
    lengths = [len(request.prompt_token_ids) for request in chunk]
    answers = [Completion.of((1,), (-0.5,), str(length), "stop") for length in lengths]
    yield [(answer,) * len(request.seeds) for answer, request in zip(answers, chunk, strict=True)], 0.1


def test_statements_are_solved_by_the_engines_of_the_job(tiny_model):
    """They have the writer's tokenizer, which need not be that of the run's model."""
    config = run_config(Path("/nowhere"), {"num_samples": 2, "max_completion_length": 16})
    model = ModelConfig(name=str(tiny_model))
    short, too_long, longer = EngineSolver(config, model, solved)(GROUP, ["1 + 1?", "x" * 400, "10 + 10?"])
    assert len(short) == len(longer) == 2 and too_long == ()
    assert int(longer[0].text) - int(short[0].text) == 2  # a token is a byte


@pytest.mark.parametrize("other", [False, True])
def test_another_model_gets_one_engine_of_its_own_length(tiny_model, tmp_path, monkeypatch, other):
    started: list[Any] = []

    def engines(rollout, limits, settings, length, directory, log_name):
        started.append((settings.name, rollout.num_workers, length, log_name))
        return ExitStack()

    monkeypatch.setattr(engine_solver, "started_engines", engines)
    writer = ModelConfig(name="writer")
    solver = {"model": str(tiny_model) if other else None, "max_completion_length": 40}
    run = run_config(tiny_model, solver)
    with ExitStack() as held:
        rest = (writer, solved, tmp_path, held)
        assert engine_solver.engine_solver(run, CONFIG, find_solver(run, CONFIG), *rest)
        assert engine_solver.engine_solver(run_config(tiny_model, None), CONFIG, None, *rest) is None
    assert started == [(str(tiny_model), 1, 300 + 40, "solver")] * other


def test_the_solver_counts_as_an_actor(tiny_model):
    plan = OtherSolver("solver", tiny_model).plan(CONFIG.rollout)
    assert (plan.name, plan.count, plan.num_cpus) == ("solver", 1, 2)


def test_only_another_model_is_looked_for(tiny_model):
    assert find_solver(run_config(tiny_model, None), CONFIG) is None
    assert find_solver(run_config(tiny_model, {}), CONFIG) is None
    found = find_solver(run_config(tiny_model, {"model": str(tiny_model)}), CONFIG)
    assert found and found.path == tiny_model and "model.safetensors" in found.files()
    elsewhere = find_solver(run_config(tiny_model, {"model": "some/solver"}), CONFIG, lambda model: None)
    assert elsewhere == OtherSolver("some/solver", None) and elsewhere.files() == {}


def test_a_solver_that_is_missing_or_too_short_is_an_error(tiny_model, monkeypatch):
    with pytest.raises(ModelError, match="/nowhere does not exist"):
        find_solver(run_config(tiny_model, {"model": "/nowhere"}), CONFIG)
    monkeypatch.setattr(engine_solver, "context_length", lambda described: 339)
    run = run_config(tiny_model, {"model": str(tiny_model), "max_completion_length": 40})
    with pytest.raises(ConfigError, match=r"must fit the 339 tokens of .* together, got 340"):
        find_solver(run, CONFIG)


def test_a_solver_whose_heads_cannot_be_shared_by_shards_is_an_error(tiny_model):
    rollout = {"tensor_parallel_size": 7, "num_gpus": 7}
    config = GenerationConfig.model_validate({"run": "RUN", "rollout": rollout})
    with pytest.raises(ConfigError, match=r"must divide the \d attention heads"):
        find_solver(run_config(tiny_model, {"model": str(tiny_model)}), config)
