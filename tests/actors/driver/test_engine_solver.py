"""The solver of a job that does not train."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.driver import engine_solver
from actors.driver.engine_solver import EngineSolver
from pipeline.config import Config
from pipeline.config.generation import GenerationConfig
from pipeline.types import Completion, Problem, RolloutGroup, WeightId

GROUP = RolloutGroup(Problem("p", ({"role": "user", "content": "Write."},), "1"), (1,), (), WeightId(0, 0))


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
    answers = [Completion((1,), (-0.5,), str(length), "stop") for length in lengths]
    yield [(answer,) * len(request.seeds) for answer, request in zip(answers, chunk, strict=True)], 0.1


def test_statements_are_solved_by_the_engines_of_the_job(tiny_model):
    config = run_config(tiny_model, {"num_samples": 2, "max_completion_length": 16})
    short, too_long, longer = EngineSolver(config, solved)(GROUP, ["1 + 1?", "x" * 400, "10 + 10?"])
    assert len(short) == len(longer) == 2 and too_long == ()
    assert int(longer[0].text) - int(short[0].text) == 2  # a token is a byte


@pytest.mark.parametrize("other", [False, True])
def test_another_model_gets_engines_of_its_own(tiny_model, tmp_path, monkeypatch, other):
    started: list[str] = []

    def engines(rollout, limits, settings, length, directory, log_name):
        started.append(settings.name)
        return ExitStack()

    monkeypatch.setattr(engine_solver, "started_engines", engines)
    config, run = GenerationConfig(run="RUN"), run_config(tiny_model, {"model": str(tiny_model) if other else None})
    with ExitStack() as held:
        assert engine_solver.engine_solver(run, config, solved, 64, tmp_path, held)
        assert engine_solver.engine_solver(run_config(tiny_model, None), config, solved, 64, tmp_path, held) is None
    assert started == [str(tiny_model)] * other
