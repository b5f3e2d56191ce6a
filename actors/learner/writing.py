"""Has a policy or a teacher write problems, for evaluations and, at the end of a stage, as training data."""

from collections.abc import Sequence
from typing import Any

from actors.learner.engines import Engines
from actors.solver import frozen_model
from pipeline.config import Config
from pipeline.curriculum.examples import Example
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import load_tokenizer, prompt_token_ids
from pipeline.questions.rows import Row, written_rows
from pipeline.seeds import completion_seeds
from pipeline.training.batching import TokenSequence
from pipeline.types import Problem


class ProblemWriter:
    """Asks engines for one problem per task, and graders for its rewards. Used by rank 0 only.

    Args:
        tokenizer: the policy's. A teacher has its own.
    """

    def __init__(self, config: Config, tokenizer: Any, engines: Engines) -> None:
        self._config, self._tokenizer, self._engines = config, tokenizer, engines

    def write(self, tasks: Sequence[Problem], purpose: str, teacher: str | None = None) -> list[Row]:
        """A row for each task whose prompt is not too long, in order.

        Rewards are computed with the initial state, without a history, so all evaluations measure alike. Otherwise
        novelty would fall just because more problems were written before.

        Args:
            purpose: part of the sampling seed, along with the run's seed and the task.
            teacher: the frozen model that writes. None: the policy with the weights published last.
        """
        tokenizer = self._tokenizer if teacher is None else self._teachers_tokenizer(teacher)
        prompts = [Example(task, TokenSequence(prompt_token_ids(tokenizer, task), ())) for task in tasks]
        limit = self._config.rollout.max_prompt_length
        fitting = [example for example in prompts if len(example.tokens.prompt) <= limit]
        seeds = [
            completion_seeds(self._config.seed, 0, f"{purpose}:{index}:{example.problem.id}", 1)
            for index, example in enumerate(fitting)
        ]
        groups = self._engines.write(fitting, seeds, {}, teacher)
        model = teacher or f"{self._config.model.name}, step {self._engines.weight_id.step}"
        terms = self._config.reward.functions
        return [row for group, own in zip(groups, seeds, strict=True) for row in written_rows(group, terms, model, own)]

    def _teachers_tokenizer(self, teacher: str) -> Any:
        model = frozen_model(self._config, teacher)
        return load_tokenizer(resolve_model(model), model, chat=True)
