"""The solver of written problems in a job that does not train: it asks the job's engines."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actors.driver.actor_plan import ActorPlan, plan_engines
from actors.driver.checks import check_heads
from actors.driver.engines import Answer, engine_model, started_engines
from actors.engine_loop import Decoding
from actors.reward import Solve
from actors.solver import EngineNames, Solver, frozen_model, solving_prompt
from pipeline.config import Config, ModelConfig
from pipeline.config.evaluation import EvalRolloutConfig
from pipeline.config.generation import GenerationConfig
from pipeline.errors import ConfigError
from pipeline.models.context import context_length, read_model_config
from pipeline.models.hub import check_weights, model_files, resolve_model
from pipeline.models.tokenizer import check_prompt, load_tokenizer
from pipeline.types import Completion, PromptRequest, RolloutGroup


class EngineSolver(Solver):
    """Solves with engines that have one model's weights, whatever weights a group was written with.

    Args:
        model: the files that the engines have loaded.
    """

    def __init__(self, config: Config, model: ModelConfig, answer: Answer) -> None:
        super().__init__(config, EngineNames("", ""), 1)
        self._engine_model, self._answer = model, answer

    def _model(self) -> ModelConfig:
        return self._engine_model

    def _answers(
        self, group: RolloutGroup, requests: list[PromptRequest], decoding: Decoding
    ) -> Sequence[tuple[Completion, ...]]:
        ((completions, _),) = self._answer([requests], [decoding])
        return completions


@dataclass(frozen=True)
class OtherSolver:
    """A solver that is not the writer. It has one engine of its own, which solves one group at a time."""

    name: str
    path: Path | None
    """Its files. None: they are not on this machine."""
    with_code: bool = False
    """Its own code is used."""

    def plan(self, rollout: EvalRolloutConfig) -> ActorPlan:
        return replace(plan_engines(one_engine(rollout))[0], name="solver")

    def files(self) -> Mapping[str, str]:
        """Digests by name."""
        return model_files(self.path, with_code=self.with_code) if self.path else {}


def one_engine(rollout: EvalRolloutConfig) -> EvalRolloutConfig:
    return rollout.model_copy(update={"num_workers": 1})


def find_solver(
    run: Config, config: GenerationConfig, find: Callable[[ModelConfig], Path | None] = resolve_model
) -> OtherSolver | None:
    """The model of ``questions.solver``, checked; None if the writer itself solves, or nothing does.

    Args:
        find: finds the directory of a model, or None.

    Raises:
        GradusError: it cannot be found, or its weights, chat template, attention heads or length do not fit.
    """
    solver = run.questions.solver
    if solver is None or solver.model is None:
        return None
    path = find(frozen_model(run, solver.model))
    found = OtherSolver(solver.model, path, config.loading.trust_remote_code)
    if path:
        check_weights(path, solver.model)
        tokenizer = load_tokenizer(path, engine_model(path, config.loading), chat=True)
        check_prompt(tokenizer, solving_prompt("1 + 1?", run.data), solver.model)
        described = read_model_config(path, trust_remote_code=config.loading.trust_remote_code)
        check_heads(described, config.rollout.tensor_parallel_size, solver.model)
        check_solving_length(run, described, solver.model)
    return found


def solving_length(run: Config) -> int:
    """Tokens of the longest statement and solution together; 0 without a solver."""
    solver = run.questions.solver
    return run.rollout.max_prompt_length + solver.max_completion_length if solver else 0


def check_solving_length(run: Config, described: Any, model: str) -> None:
    """Raises ConfigError if the longest statement and solution exceed the context of the model that solves.

    Args:
        described: its configuration, from ``read_model_config``.
    """
    limit = context_length(described)
    if limit is not None and solving_length(run) > limit:
        raise ConfigError(
            "rollout.max_prompt_length and questions.solver.max_completion_length of the run must fit the "
            f"{limit} tokens of {model} together, got {solving_length(run)}. Use a model with a longer context."
        )


def engine_solver(
    run: Config,
    config: GenerationConfig,
    other: OtherSolver | None,
    writer: ModelConfig,
    answer: Answer,
    directory: Path,
    held: ExitStack,
) -> Solve | None:
    """The solver of ``questions.solver``; None without one.

    Args:
        other: the model that ``find_solver`` found.
        writer, answer: the writer's files and engines, which solve unless the run names another model.
        held: keeps another model's engine running.
    """
    if run.questions.solver is None:
        return None
    if other is None:
        return EngineSolver(run, writer, answer)
    assert other.path is not None
    settings = engine_model(other.path, config.loading)
    rollout, length = one_engine(config.rollout), solving_length(run)
    engine = started_engines(rollout, config.limits, settings, length, directory, "solver")
    return EngineSolver(run, settings, held.enter_context(engine))
