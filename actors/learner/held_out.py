"""Evaluations on held-out problems while a stage trains: answers on the engines, and loss on worked solutions."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from actors.learner.engines import Engines
from actors.learner.ranks import Ranks
from actors.learner.recorder import StepRecorder
from actors.learner.writing import ProblemWriter
from pipeline.config import HeldOutConfig, SFTConfig
from pipeline.curriculum.examples import sft_sequence, shortened
from pipeline.curriculum.schedule import QUALITY
from pipeline.data.selection import first_per_level
from pipeline.data.tokens import as_tokens, encode_problems
from pipeline.errors import DataError
from pipeline.evaluation.held_out import accuracy_by_level, held_out_row, writing_row
from pipeline.models.tokenizer import prompt_token_ids
from pipeline.questions.summary import writing_summary
from pipeline.training.batching import MicroBatch, TokenSequence
from pipeline.training.sft import held_out_sums, learned_tokens, perplexity
from pipeline.types import Problem

logger = logging.getLogger(__name__)


class HeldOutEvaluator:
    """Evaluates the weights that were published last. All workers call it; rank 0 asks the engines and records.

    Args:
        problems: all held-out problems. Those whose prompts exceed ``max_prompt_length`` tokens are left out.
        writer: answers tasks to write problems.
        recorder: rank 0's.

    Raises:
        DataError: no prompt fits.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        tokenizer: Any,
        config: HeldOutConfig,
        max_prompt_length: int,
        engines: Engines,
        ranks: Ranks,
        writer: ProblemWriter,
        recorder: StepRecorder | None,
    ) -> None:
        self._tokenizer, self._config, self._engines = tokenizer, config, engines
        self._ranks, self._writer, self._recorder = ranks, writer, recorder
        self._fitting = [p for p in problems if len(prompt_token_ids(tokenizer, p)) <= max_prompt_length]
        if len(self._fitting) < len(problems):
            logger.warning("%d held-out problems are too long: left out", len(problems) - len(self._fitting))
        if problems and not self._fitting:
            raise DataError(
                f"held-out problems must fit into rollout.max_prompt_length={max_prompt_length}, got none that does."
            )

    def problems(self, per_level: int | Literal["all"] | None = None) -> list[Problem]:
        """The first ``per_level`` problems of every level, by default ``eval.problems_per_level``."""
        if per_level == "all":
            return self._fitting
        return first_per_level(self._fitting, self._config.problems_per_level if per_level is None else per_level)

    def evaluate(self, name: str, step: int, per_level: int | Literal["all"] | None = None) -> None:
        """Record accuracy by level under ``name``. Without problems nothing is recorded."""
        problems = self.problems(per_level)
        if self._recorder and problems:
            rows = self._answers(problems)
            self._recorder.evaluation(name, step, self._summary(rows), rows)
        self._ranks.barrier()

    def answer_metrics(self, name: str) -> dict[str, float]:
        """Share of the problems that are answered correctly and, of tasks to write problems, the mean quality. The
        answers are recorded under ``name``."""

        def answered() -> dict[str, float]:
            rows = self._answers(self.problems())
            if self._recorder:
                self._recorder.answers(name, rows)
            summary = self._summary(rows)
            quality = {QUALITY: summary["writing"]["quality"]["mean"]} if "writing" in summary else {}
            return {"eval_answer_accuracy": float(summary["overall"]["answer_accuracy"]), **quality}

        return self._ranks.from_first(answered)

    def _summary(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        written = [row for row in rows if "parts" in row]
        return accuracy_by_level(rows) | ({"writing": writing_summary(written)} if written else {})

    def level_accuracy(self, levels: Sequence[str]) -> float:
        """Tagged accuracy on the problems of these levels. Raises DataError if there are none."""
        problems = [problem for problem in self.problems() if problem.level in levels]
        if not problems:
            raise DataError(f"curriculum.promotion must have held-out problems of {list(levels)}, got none.")
        return self._ranks.from_first(
            lambda: float(accuracy_by_level(self._answers(problems))["overall"]["accuracy_tagged"])
        )

    def _answers(self, problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """Greedy answers, graded: a row per problem. Written problems are sampled: greedily, all of a topic and level
        would be the same."""
        if problems and problems[0].writing:
            return [row | writing_row(row) for row in self._writer.write(problems, "held-out")]
        prompts = [prompt_token_ids(self._tokenizer, problem) for problem in problems]
        completions = self._engines.answer(prompts, self._config.max_completion_length)
        return [held_out_row(problem, completion) for problem, completion in zip(problems, completions, strict=True)]

    def solution_metrics(
        self,
        model: nn.Module,
        settings: SFTConfig,
        make_batches: Callable[[list[TokenSequence]], list[MicroBatch]],
        dtype: torch.dtype,
    ) -> dict[str, float]:
        """Loss, perplexity and token accuracy on the worked solutions of held-out problems, each worker on its part.
        Empty if no solution fits."""
        solved = [problem for problem in self.problems() if problem.solution is not None]
        encoded = encode_problems(self._tokenizer, solved).to_pylist() if solved else []
        examples = [sft_sequence(as_tokens(row)) for row in encoded]
        fitting = [learned_tokens(e, settings.loss_on) for whole in examples if (e := shortened(whole, settings))]
        batches = make_batches(fitting[self._ranks.rank :: self._ranks.size])
        loss, num_hits, num_tokens = self._ranks.sum(held_out_sums(model, batches, dtype))
        if not num_tokens:
            return {}
        return {
            "eval_loss": loss / num_tokens,
            "eval_perplexity": perplexity(loss / num_tokens),
            "eval_token_accuracy": num_hits / num_tokens,
        }
