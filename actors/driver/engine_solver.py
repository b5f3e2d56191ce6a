"""The solver of written problems in a job that does not train: it asks the job's engines."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from actors.driver.engines import Answer, engine_model, started_engines
from actors.reward import Solve
from actors.rollout import Decoding
from actors.solver import EngineNames, Solver, frozen_model
from pipeline.config import Config
from pipeline.config.generation import GenerationConfig
from pipeline.models.hub import resolve_model
from pipeline.types import Completion, PromptRequest, RolloutGroup


class EngineSolver(Solver):
    """Solves with engines that have one model's weights, whatever weights a group was written with."""

    def __init__(self, config: Config, answer: Answer) -> None:
        super().__init__(config, EngineNames("", ""), 1)
        self._answer = answer

    def _answers(
        self, group: RolloutGroup, requests: list[PromptRequest], decoding: Decoding
    ) -> Sequence[tuple[Completion, ...]]:
        ((completions, _),) = self._answer([requests], [decoding])
        return completions


def engine_solver(
    run: Config, config: GenerationConfig, answer: Answer, length: int, directory: Path, held: ExitStack
) -> Solve | None:
    """The solver of ``questions.solver``; None without one.

    Args:
        answer: asks the engines of the writer, which solve unless the run names another model.
        length: tokens of the longest prompt and completion together.
        held: keeps engines of another model.
    """
    solver = run.questions.solver
    if solver is None:
        return None
    if solver.model is not None:
        settings = engine_model(resolve_model(frozen_model(run, solver.model)), config.loading)
        engines = started_engines(config.rollout, config.limits, settings, length, directory, "solver")
        answer = held.enter_context(engines)
    return EngineSolver(run, answer)
