"""Evaluations on held-out problems while a stage trains: answers on the engines, and loss on worked solutions."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from actors.learner.engines import Engines
from actors.learner.ranks import Ranks
from pipeline.config import HeldOutConfig, SFTConfig
from pipeline.curriculum.examples import shortened
from pipeline.data.selection import first_per_level
from pipeline.data.tokens import encode_problems
from pipeline.errors import DataError
from pipeline.evaluation.held_out import accuracy_by_level, held_out_row
from pipeline.models.tokenizer import prompt_token_ids
from pipeline.training.batching import MicroBatch, TokenSequence
from pipeline.training.sft import held_out_sums, learned_tokens, perplexity
from pipeline.types import Problem

logger = logging.getLogger(__name__)
Evaluation = tuple[dict[str, Any], list[dict[str, Any]]]
"""The summary by level, and a row per problem."""


class HeldOutEvaluator:
    """Evaluates the weights that were published last.

    Args:
        problems: all held-out problems. Those whose prompts exceed ``max_prompt_length`` tokens are left out.
        engines: they answer, on rank 0's request.

    Raises:
        DataError: no prompt fits.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        tokenizer: Any,
        engines: Engines,
        config: HeldOutConfig,
        max_prompt_length: int,
    ) -> None:
        self._tokenizer, self._engines, self._config = tokenizer, engines, config
        self._fitting = [p for p in problems if len(prompt_token_ids(tokenizer, p)) <= max_prompt_length]
        if len(self._fitting) < len(problems):
            logger.warning("%d held-out problems are too long: left out", len(problems) - len(self._fitting))
        if problems and not self._fitting:
            raise DataError(
                f"held-out problems must fit into rollout.max_prompt_length={max_prompt_length}, got none that does."
            )

    def problems(self, per_level: int | Literal["all"] | None = None) -> list[Problem]:
        """The first so many problems of every level, by default ``eval.problems_per_level``."""
        if per_level == "all":
            return self._fitting
        return first_per_level(self._fitting, self._config.problems_per_level if per_level is None else per_level)

    def answer(self, problems: Sequence[Problem]) -> Evaluation:
        """Greedy answers to these problems, graded."""
        prompts = [prompt_token_ids(self._tokenizer, problem) for problem in problems]
        completions = self._engines.answer(prompts, self._config.max_completion_length)
        rows = [held_out_row(problem, completion) for problem, completion in zip(problems, completions, strict=True)]
        return accuracy_by_level(rows), rows

    def level_accuracy(self, levels: Sequence[str]) -> float:
        """Accuracy on the problems of these levels.

        Raises:
            DataError: there are none.
        """
        problems = [problem for problem in self.problems() if problem.level in levels]
        if not problems:
            raise DataError(f"curriculum.promotion must have held-out problems of {list(levels)}, got none.")
        return float(self.answer(problems)[0]["overall"]["accuracy_tagged"])

    def solution_metrics(
        self,
        model: nn.Module,
        settings: SFTConfig,
        make_batches: Callable[[list[TokenSequence]], list[MicroBatch]],
        dtype: torch.dtype,
        ranks: Ranks,
    ) -> dict[str, float]:
        """Loss, perplexity and token accuracy on the worked solutions of held-out problems, each worker on its part.
        Empty when no solution fits."""
        solved = [problem for problem in self.problems() if problem.solution is not None]
        encoded = encode_problems(self._tokenizer, solved).to_pylist() if solved else []
        examples = [TokenSequence(tuple(row["prompt"]), tuple(row["completion"])) for row in encoded]
        fitting = [learned_tokens(e, settings.loss_on) for whole in examples if (e := shortened(whole, settings))]
        batches = make_batches(fitting[ranks.rank :: ranks.size])
        loss, num_hits, num_tokens = ranks.sum(held_out_sums(model, batches, dtype))
        if not num_tokens:
            return {}
        return {
            "eval_loss": loss / num_tokens,
            "eval_perplexity": perplexity(loss / num_tokens),
            "eval_token_accuracy": num_hits / num_tokens,
        }
