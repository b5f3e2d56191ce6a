"""One model answers all of its problems, chunk by chunk, on vLLM engines that are Ray actors.

Chunks are fixed before anything starts and are written in their order, whichever engine finishes first. So an
evaluation gives the same rows with one engine or with many, and when it is killed and resumed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from actors.calls import Limit, result_of, wait_for
from actors.driver.actor_plan import plan_engines
from actors.driver.cluster import reserve
from actors.driver.start import end_process, engine_options, make_actor, places
from actors.driver.training_guard import TrainingGuard
from actors.handles import EvalHandle, Ref
from actors.placement import PlacementWatch
from actors.rollout import Decoding, EvalWorker
from pipeline.config import EvaluationConfig, LoadingConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.merging import load_directory
from pipeline.evaluation.models import EvalModel
from pipeline.evaluation.prompts import Prompter
from pipeline.evaluation.results import Chunk, ResultsFile
from pipeline.evaluation.scoring import score
from pipeline.models.context import context_length, read_model_config
from pipeline.models.tokenizer import load_tokenizer
from pipeline.seeds import completion_seeds
from pipeline.types import Completion, PromptRequest
from pipeline.verifier import Grader

CHUNKS_PER_ENGINE = 2
"""Chunks given to an engine at a time, so that none is ever idle."""
MAX_SEQUENCES = 256
"""Sequences decoded at once; the rest of a chunk waits inside the engine."""
Answers = tuple[list[tuple[Completion, ...]], float]
"""Completions [num_requests][num_seeds], and seconds."""


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
        """Append the rows of every chunk but the first ``num_done``. An engine that dies is replaced, and answers its
        chunk again."""
        scratch = self._directory / "merged_model"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            path = load_directory(self._model, self._config.loading, scratch)
            settings = engine_model(path, self._config.loading)
            tokenizer = load_tokenizer(path, settings, chat=False)
            all_requests = [self._requests(tokenizer, chunk) for chunk in chunks]
            max_length = self._max_length(path, all_requests)
            placement = reserve(plan_engines(self._config), self._config.limits.placement_s)
            workers: list[EvalHandle] = []
            try:
                workers = self._start(settings, max_length, placement)
                remaining, remaining_chunks = all_requests[num_done:], chunks[num_done:]
                fitting = [[request for request in requests if self._fits(request)] for requests in remaining]
                decodings = [self._decoding(chunk) for chunk in remaining_chunks]
                watch = PlacementWatch(placement, self._config.limits.placement_s)
                answers = _in_order(
                    workers, fitting, decodings, Limit(self._config.limits.engine_s, "limits.engine_s"), watch
                )
                for chunk, requests, (completions, seconds) in zip(remaining_chunks, remaining, answers, strict=True):
                    results.append(self._rows(tokenizer, chunk, requests, self._filled(requests, completions), seconds))
                    advance(len(chunk.problems))
            finally:
                for worker in workers:
                    ray.kill(worker)
                if placement:
                    remove_placement_group(placement)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _max_length(self, path: Path, all_requests: Sequence[Sequence[PromptRequest]]) -> int:
        """Tokens of the longest answered prompt plus a completion. It covers all chunks, so that a resumed evaluation
        has the same engines."""
        fitting = [
            len(request.prompt_token_ids) for requests in all_requests for request in requests if self._fits(request)
        ]
        limit = context_length(read_model_config(path, trust_remote_code=self._config.loading.trust_remote_code))
        return check_length(self._config, self._model.label, max(fitting, default=1), limit)

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
        answered, empty = iter(completions), Completion((), (), "", "length")
        return [next(answered) if self._fits(r) else (empty,) * len(r.seeds) for r in requests]

    def _start(self, settings: ModelConfig, longest: int, placement: PlacementGroup | None) -> list[EvalHandle]:
        rollout = self._config.rollout
        arguments = (rollout, settings, longest, min(rollout.prompts_per_chunk * rollout.num_samples, MAX_SEQUENCES))
        return [
            make_actor(EvalWorker, self._directory, f"rollout_{index}", **engine_options(rollout), **place).remote(
                *arguments, _no_weights, end_process
            )
            for index, place in zip(range(rollout.num_workers), places(placement), strict=False)
        ]

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


def check_length(config: EvaluationConfig, label: str, prompt_length: int, limit: int | None) -> int:
    """Tokens of a prompt and a completion. Raises ConfigError if they exceed the model's limit."""
    length = prompt_length + config.rollout.max_completion_length
    if limit is not None and length > limit:
        raise ConfigError(
            f"rollout.max_prompt_length and rollout.max_completion_length must fit {label} together, which has "
            f"{limit} positions, got {length} tokens for its longest prompt and a completion. Lower one."
        )
    return length


def engine_model(path: Path, loading: LoadingConfig) -> ModelConfig:
    return ModelConfig(name=str(path), dtype=loading.dtype, trust_remote_code=loading.trust_remote_code)


def _no_weights(weight_id: Any) -> Any:
    raise LookupError(f"an evaluation has only the weights in its model's files, got a request for weights {weight_id}")


def _in_order(
    workers: Sequence[EvalHandle],
    chunks: Sequence[list[PromptRequest]],
    decodings: Sequence[Decoding],
    limit: Limit,
    check: Callable[[], None],
) -> Iterator[Answers]:
    """Answers of every chunk, in order. An engine gets its next chunk when it has answered one."""
    pending: dict[Ref[Answers], tuple[int, EvalHandle]] = {}
    answered: dict[int, Answers] = {}
    waiting = iter(zip(range(len(chunks)), chunks, decodings, strict=True))
    free = [worker for _ in range(CHUNKS_PER_ENGINE) for worker in workers]
    for position in range(len(chunks)):
        while position not in answered:
            for index, requests, decoding in islice(waiting, len(free)):
                worker = free.pop(0)
                pending[worker.answer.remote(requests, decoding)] = index, worker
            calls = {ref: worker for ref, (_, worker) in pending.items()}
            ready = wait_for(calls, "completions", limit, check)[0]
            index, worker = pending.pop(ready)
            answered[index] = result_of(ready, "an engine")
            free.append(worker)
        yield answered.pop(position)
