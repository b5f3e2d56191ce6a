"""One model answers all of its problems, chunk by chunk, on engines."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.driver.engines import check_length, engine_files, engine_model, started_engines
from actors.driver.training_guard import TrainingGuard
from actors.engine_loop import Decoding
from pipeline.config import EvaluationConfig
from pipeline.evaluation.models import EvalModel
from pipeline.evaluation.prompts import Prompter
from pipeline.evaluation.results import Chunk, ResultsFile
from pipeline.evaluation.scoring import score
from pipeline.models.context import context_length, read_model_config
from pipeline.models.tokenizer import load_tokenizer
from pipeline.seeds import completion_seeds
from pipeline.types import Completion, PromptRequest
from pipeline.verifier import Grader


class Examination:
    """One model answers its chunks."""

    def __init__(
        self,
        config: EvaluationConfig,
        model: EvalModel,
        prompters: dict[str, Prompter],
        guard: TrainingGuard,
        grader: Grader,
        directory: Path,
    ) -> None:
        self._config, self._model, self._prompters = config, model, prompters
        self._guard, self._grader, self._directory = guard, grader, directory

    def run(self, chunks: Sequence[Chunk], num_done: int, results: ResultsFile, advance: Callable[[int], None]) -> None:
        """Append the rows of every chunk but the first ``num_done``."""
        config = self._config
        with engine_files(self._model, config.loading, self._directory) as path:
            settings = engine_model(path, config.loading)
            tokenizer = load_tokenizer(path, settings, chat=False)
            all_requests = [self._requests(tokenizer, chunk) for chunk in chunks]
            max_length = self._max_length(path, all_requests)
            remaining, remaining_chunks = all_requests[num_done:], chunks[num_done:]
            fitting = [[request for request in requests if self._fits(request)] for requests in remaining]
            with started_engines(config.rollout, config.limits, settings, max_length, self._directory) as answer:
                answers = answer(fitting, [self._decoding(chunk) for chunk in remaining_chunks])
                for chunk, requests, (completions, seconds) in zip(remaining_chunks, remaining, answers, strict=True):
                    results.append(self._rows(tokenizer, chunk, requests, self._filled(requests, completions), seconds))
                    advance(len(chunk.problems))

    def _max_length(self, path: Path, all_requests: Sequence[Sequence[PromptRequest]]) -> int:
        """Tokens of the longest answered prompt plus a completion. It covers all chunks, so that a resumed evaluation
        has the same engines."""
        fitting = [
            len(request.prompt_token_ids) for requests in all_requests for request in requests if self._fits(request)
        ]
        limit = context_length(read_model_config(path, trust_remote_code=self._config.loading.trust_remote_code))
        return check_length(self._config.rollout, self._model.label, max(fitting, default=1), limit)

    def _requests(self, tokenizer: Any, chunk: Chunk) -> list[PromptRequest]:
        """Prompts with their sampling seeds."""
        prompter, rollout = self._prompters[chunk.dataset], self._config.rollout
        return [
            PromptRequest(
                prompter.token_ids(tokenizer, problem),
                completion_seeds(self._config.seed, 0, f"{chunk.dataset} {problem.id}", rollout.num_samples),
            )
            for problem in chunk.problems
        ]

    def _fits(self, request: PromptRequest) -> bool:
        return len(request.prompt_token_ids) <= self._config.rollout.max_prompt_length

    def _filled(
        self, requests: Sequence[PromptRequest], completions: Sequence[tuple[Completion, ...]]
    ) -> list[tuple[Completion, ...]]:
        """The completions of all requests. A prompt too long for the engine gets empty ones, marked as cut off."""
        answered, empty = iter(completions), Completion.of((), (), "", "length")
        return [next(answered) if self._fits(r) else (empty,) * len(r.seeds) for r in requests]

    def _decoding(self, chunk: Chunk) -> Decoding:
        return replace(Decoding.from_config(self._config.rollout), stop=self._prompters[chunk.dataset].stop)

    def _rows(
        self,
        tokenizer: Any,
        chunk: Chunk,
        requests: Sequence[PromptRequest],
        answers: Sequence[tuple[Completion, ...]],
        seconds: float,
    ) -> list[dict[str, Any]]:
        """Rows of eval_results.jsonl. A completion's seconds are its share of the chunk's, by tokens."""
        flat = [
            (problem, request, index, completion)
            for problem, request, group in zip(chunk.problems, requests, answers, strict=True)
            for index, completion in enumerate(group)
        ]
        scores = score([c for *_, c in flat], [problem.gold for problem, *_ in flat], self._grader)
        num_tokens = sum(len(completion.token_ids) for *_, completion in flat) or 1
        texts = {p.id: self._prompters[chunk.dataset].text(tokenizer, p) for p in chunk.problems}
        return [
            {
                "model": chunk.model,
                "dataset": chunk.dataset,
                "problem_id": problem.id,
                "sample": index,
                "level": problem.level,
                "type": problem.type,
                "source": problem.source,
                "difficulty": problem.difficulty,
                "question": problem.question,
                "prompt": texts[problem.id],
                "completion": completion.text,
                "answer": scored["answer"],
                "gold": problem.gold,
                **{key: scored[key] for key in ("outcome", "method", "strict", "symbolic", "numeric")},
                "num_prompt_tokens": len(request.prompt_token_ids),
                "num_tokens": len(completion.token_ids),
                "seconds": round(seconds * len(completion.token_ids) / num_tokens, 4),
                "in_training_data": self._guard.find(chunk.model, problem),
            }
            for (problem, request, index, completion), scored in zip(flat, scores, strict=True)
        ]
