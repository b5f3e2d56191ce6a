"""The solver of written problems, with which reward workers ask an engine for solutions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.calls import Limit, results_of
from actors.engine_loop import Decoding
from actors.reward import Solve
from pipeline.config import Config, DataConfig, ModelConfig
from pipeline.data.problems import question_alone
from pipeline.errors import ClusterError, first_line
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import load_tokenizer, prompt_token_ids
from pipeline.seeds import derive_seed
from pipeline.types import Completion, Problem, PromptRequest, RolloutGroup


@dataclass(frozen=True)
class EngineNames:
    """The names of a run's engines in Ray.

    Engines are looked up by name because an actor with handles among its constructor arguments could not restart once
    the creator of the handles is gone.
    """

    run: str
    tag: str

    def policy(self, index: int) -> str:
        return f"rollout-{self.run}{self.tag}-{index}"

    def frozen(self, model: str) -> str:
        return f"frozen-{self.run}{self.tag}-{model}"


def frozen_model(config: Config, name: str) -> ModelConfig:
    """The settings that a frozen model is loaded with: the policy's, except for name, revision and LoRA."""
    policy = config.model
    of_policy = policy.revision if name == policy.name else None
    revision = config.questions.frozen_revisions.get(name, of_policy)
    return policy.model_copy(update={"name": name, "revision": revision, "lora": None})


def solving_prompt(statement: str, data: DataConfig) -> Problem:
    """A prompt to solve the statement, even if the data is turned into writing tasks."""
    return question_alone(statement, data.model_copy(update={"write": None}))


def make_solver(config: Config, names: EngineNames, num_engines: int) -> Solve | None:
    """The function with which reward workers ask for solutions; None without a solver."""
    return Solver(config, names, num_engines) if config.questions.solver else None


@dataclass
class Solver:
    """Asks engines for solutions. It is pickled to reward workers, and loads the tokenizer on first use.

    All statements of a group go to one engine in one call, so solutions depend on the group alone.
    """

    config: Config
    names: EngineNames
    num_engines: int
    _tokenizer: Any = field(default=None, init=False, repr=False)

    def __call__(self, group: RolloutGroup, statements: Sequence[str]) -> list[tuple[Completion, ...]]:
        """Solutions of each statement: [num_statements][num_samples], empty for one that is too long for the engine."""
        solver = self.config.questions.solver
        assert solver is not None
        prompts = [self._prompt(statement) for statement in statements]
        fits = [len(prompt) <= self.config.rollout.max_prompt_length for prompt in prompts]
        requests = [
            PromptRequest(prompt, self._seeds(group, index)) for index, prompt in enumerate(prompts) if fits[index]
        ]
        if not requests:
            return [() for _ in statements]
        decoding = Decoding(solver.temperature, max_completion_length=solver.max_completion_length)
        solved = iter(self._answers(group, requests, decoding))
        return [next(solved) if is_asked else () for is_asked in fits]

    def _answers(
        self, group: RolloutGroup, requests: list[PromptRequest], decoding: Decoding
    ) -> Sequence[tuple[Completion, ...]]:
        solver = self.config.questions.solver
        try:
            engine = ray.get_actor(self._engine(group))
        except ValueError as error:
            raise ClusterError(f"the solver's engine must be there, got none: {first_line(error)}") from None
        weight_id = group.weight_id if solver and solver.model is None else None
        limit = Limit(self.config.limits.engine_s, "limits.engine_s")
        ref = engine.generate.remote(weight_id, requests, decoding)
        answers: list[Sequence[tuple[Completion, ...]]]
        answers = results_of({ref: engine}, "solutions", "an engine", limit)
        return answers[0]

    def _prompt(self, statement: str) -> tuple[int, ...]:
        if self._tokenizer is None:
            model = self._model()
            self._tokenizer = load_tokenizer(resolve_model(model), model, chat=True)
        return tuple(prompt_token_ids(self._tokenizer, solving_prompt(statement, self.config.data)))

    def _model(self) -> ModelConfig:
        solver = self.config.questions.solver
        return frozen_model(self.config, solver.model) if solver and solver.model else self.config.model

    def _seeds(self, group: RolloutGroup, index: int) -> tuple[int, ...]:
        solver = self.config.questions.solver
        assert solver is not None
        # Without the attempt, so a resumed run samples the same as an uninterrupted one.
        parts = (self.config.seed, group.weight_id.step, group.problem.id, index)
        return tuple(derive_seed(*parts, sample) & 0x7FFFFFFF for sample in range(solver.num_samples))

    def _engine(self, group: RolloutGroup) -> str:
        solver = self.config.questions.solver
        if solver and solver.model is not None:
            return self.names.frozen(solver.model)
        return self.names.policy(derive_seed(group.problem.id) % self.num_engines)
