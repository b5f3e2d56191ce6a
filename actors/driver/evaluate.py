"""An evaluation: every model answers every problem, chunk by chunk, on vLLM engines that are Ray actors.

Chunks are fixed before anything starts and are written in their order, whichever engine is done first. So the same
evaluation gives the same rows with one engine or with many, killed and resumed or not.
"""

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from actors.driver.launch import connected_ray, engine_options, make_actor, wait_for_resources
from actors.driver.plan import plan_engines, plan_stages
from actors.rollout import Decoding, RolloutWorker
from pipeline.cli import JobArguments, check_output_root
from pipeline.config import ModelConfig, load_config
from pipeline.config.evaluation import EvaluationConfig, LoadingConfig
from pipeline.data import load_problems
from pipeline.errors import ClusterError, ConfigError, DataError, GradusError
from pipeline.evaluation.datasets import EvalProblem, Loaded, load_data_set, training_questions
from pipeline.evaluation.evaluation_report import write_evaluation_report
from pipeline.evaluation.models import EvalModel, check_fit, find_model, load_directory, unique_labels
from pipeline.evaluation.overlap import Overlap, TrainingQuestions
from pipeline.evaluation.prompts import Prompter, make_prompter
from pipeline.evaluation.record import NAME as RECORD
from pipeline.evaluation.record import EvaluationRecord, read_record
from pipeline.evaluation.results import Chunk, ResultsFile
from pipeline.evaluation.scoring import score
from pipeline.files import write_json
from pipeline.models.policy import choose_dtype
from pipeline.models.tokenizer import load_tokenizer
from pipeline.reports import page
from pipeline.runs.directory import RunDirectory, hold_lock, latest_directory, make_directory
from pipeline.runs.logs import log_to_file
from pipeline.seeds import completion_seeds
from pipeline.types import Completion, PromptRequest
from pipeline.verifier import Grader

logger = logging.getLogger(__name__)
CHUNKS_PER_ENGINE = 2
"""In work and waiting, so that no engine is ever idle."""
MAX_SEQUENCES = 256
"""Decoded together at most; the rest of a chunk waits inside the engine."""


class EvalWorker(RolloutWorker):
    """An engine that says how long a chunk took."""

    def answer(self, requests: list[PromptRequest], decoding: Decoding) -> tuple[list[tuple[Completion, ...]], float]:
        """Completions [num_requests][num_seeds], and seconds."""
        start = time.perf_counter()
        completions = self.generate(None, requests, decoding)
        return completions, time.perf_counter() - start


def read_evaluation_arguments(arguments: JobArguments) -> tuple[EvaluationConfig, Path | None]:
    """The checked configuration, and the evaluation to go on with.

    Raises:
        ConfigError, CheckpointError: a wrong setting; no such evaluation.
    """
    if arguments.resume is None:
        config = load_config(arguments.config, arguments.overrides, EvaluationConfig)
        check_output_root(config.output.root)
        return config, None
    directory = Path(arguments.resume)
    if arguments.resume == "latest":
        only_root = [item for item in arguments.overrides if item.startswith("output.root=")]
        root = load_config(arguments.config, only_root, EvaluationConfig).output.root
        directory = latest_directory(root, RECORD)
    read_record(directory)
    return load_config(directory / "experiment_config.json", arguments.overrides, EvaluationConfig), directory


def run_evaluation(config: EvaluationConfig, directory: Path | None = None) -> Path:
    """Answer what is not answered yet, then write the summary and the report.

    Args:
        directory: of an evaluation to go on with; None makes a new one, once everything else is known to be there.

    Returns:
        The evaluation's directory.

    Raises:
        GradusError: something the configuration names cannot be had.
    """
    dtype = choose_dtype(config.loading.dtype, on_gpu=config.rollout.num_gpus > 0)
    config = config.model_copy(update={"loading": config.loading.model_copy(update={"dtype": dtype})})
    models = _find_models(config, directory)
    loaded = [load_data_set(name, config) for name in config.dataset]
    prompters = {(m.label, d.name): make_prompter(d, config, m.run_config()) for m in models for d in loaded}
    for model in models:  # one that fails later would keep what the others answered from being reported
        check_fit(model, config.loading)
        _tokenizer(model.base or model.path, config, prompters, model.label)
    guard = Guard(config, models)
    loaded = [guard.without_seen(data) for data in loaded] if config.guard.leave_out else loaded
    chunks = plan_chunks(config, models, loaded)
    record = EvaluationRecord.of(config, models, loaded, prompters, guard.notes)
    with connected_ray():
        wait_for_resources(plan_engines(config))
        directory = _prepared(config, record, directory)
        with page.writing_to(directory, "Make room, then go on with --resume."):
            lock = hold_lock(directory)
        print(f"run directory: {directory}", flush=True)
        log_to_file(directory, "driver")
        results = ResultsFile(directory)
        done = results.num_done(chunks, config.rollout.num_samples)
        try:
            with _progress_shown(chunks, done) as advance, _grader(config) as grader:
                for model in models:
                    own = [chunk for chunk in chunks if chunk.model == model.label]
                    num_done = min(max(done - chunks.index(own[0]), 0), len(own))
                    asked = {data.name: prompters[model.label, data.name] for data in loaded}
                    if num_done < len(own):
                        logger.info("%s answers %d chunks of %d", model.label, len(own) - num_done, len(own))
                        examination = Examination(config, model, asked, guard, grader, directory)
                        examination.run(own, num_done, results, advance)
        except GradusError:
            with suppress(GradusError):  # what was answered before is worth a report
                write_evaluation_report(directory)
            raise
    write_evaluation_report(directory)
    lock.close()
    return directory


def _find_models(config: EvaluationConfig, directory: Path | None) -> list[EvalModel]:
    """Of an evaluation that goes on, those that it was started with: ``checkpoint_last`` may be another by now."""
    named = list(unique_labels(config.model))
    if directory is None:
        return [find_model(label, name, config.loading) for label, name in named]
    paths = {model["label"]: model["path"] for model in read_record(directory)["models"]}
    return [replace(find_model(label, paths.get(label, name), config.loading), name=name) for label, name in named]


def _prepared(config: EvaluationConfig, record: EvaluationRecord, directory: Path | None) -> Path:
    """The evaluation's directory: a new one, or the one to go on with, checked."""
    if directory is not None:
        record.check(directory)
        return directory
    directory = make_directory(config.output.root)
    with page.writing_to(directory, "Make room, or set output.root elsewhere."):
        (directory / "logs").mkdir()
        write_json(directory / "experiment_config.json", config.model_dump())
        record.write(directory)
    return directory


def _tokenizer(path: Path, config: EvaluationConfig, prompters: Mapping[tuple[str, str], Prompter], label: str) -> Any:
    """Raises ModelError when there is none, or it lacks the chat template that a prompt needs."""
    is_chat = any(prompter.style == "chat" for (model, _), prompter in prompters.items() if model == label)
    return load_tokenizer(path, engine_model(path, config.loading), chat=is_chat)


def plan_chunks(config: EvaluationConfig, models: Sequence[EvalModel], loaded: Sequence[Loaded]) -> list[Chunk]:
    """All that has to be answered, in the order of the results."""
    size = config.rollout.prompts_per_chunk
    return [
        Chunk(model.label, data.name, tuple(data.problems[start : start + size]))
        for model in models
        for data in loaded
        for start in range(0, len(data.problems), size)
    ]


class Guard:
    """Which problems the models were trained on. Reads the training data once, when it is made."""

    def __init__(self, config: EvaluationConfig, models: Sequence[EvalModel]) -> None:
        self.notes: dict[str, str] = {}
        """By model: what was looked through, or why that could not be done."""
        self._by_model: dict[str, TrainingQuestions] = {}
        named = [question for name in config.guard.train_data for question in training_questions(name, config)]
        trained_on = cache(_trained_on)
        for model in models:
            own, failure = trained_on(model.run.path) if model.run else ([], None)
            trained = self._by_model[model.label] = TrainingQuestions([*named, *own])
            self.notes[model.label] = _guard_note(len(trained), failure)

    def find(self, model: str, problem: EvalProblem) -> Overlap | None:
        return self._by_model[model].find(problem.question)

    def without_seen(self, data: Loaded) -> Loaded:
        """Without what any of the models was trained on, so that all are asked the same."""
        kept = [p for p in data.problems if not any(trained.find(p.question) for trained in self._by_model.values())]
        if not kept:
            raise DataError(
                f"dataset {data.name} must have problems left to ask, got 0 of {len(data.problems)}: all are in the "
                "training data. Set guard.leave_out=false."
            )
        return data.without_seen(kept)


def _trained_on(run: Path) -> tuple[list[str], GradusError | None]:
    """Questions of all stages of a run, or why its data cannot be had any more."""
    try:
        config = RunDirectory(run).load_config()
        stages = plan_stages(config, load_problems(config.data, "train"))
    except GradusError as error:
        logger.warning("training data of %s cannot be looked through: %s", run, error)
        return [], error
    return [problem.question for stage in stages for problem in stage.problems], None


def _guard_note(num_questions: int, failure: GradusError | None) -> str:
    if failure:
        return f"its training data could not be looked through: {failure}"
    return f"{num_questions:,} training questions looked through" if num_questions else "training data not known"


class Examination:
    """One model answers its chunks."""

    def __init__(
        self,
        config: EvaluationConfig,
        model: EvalModel,
        prompters: dict[str, Prompter],
        guard: Guard,
        grader: Grader,
        directory: Path,
    ) -> None:
        self._config, self._model, self._prompters = config, model, prompters
        self._guard, self._grader, self._directory = guard, grader, directory

    def run(self, chunks: Sequence[Chunk], num_done: int, results: ResultsFile, advance: Callable[[int], None]) -> None:
        """Append the rows of every chunk but the first ``num_done``. An engine that dies is started again and answers
        its chunk again."""
        scratch = self._directory / "merged_model"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            path = load_directory(self._model, self._config.loading, scratch)
            settings = engine_model(path, self._config.loading)
            tokenizer = load_tokenizer(path, settings, chat=False)
            asked = [self._requests(tokenizer, chunk) for chunk in chunks]
            workers = self._start(settings, self._max_length(path, asked))
            try:
                left, chunks_left = asked[num_done:], chunks[num_done:]
                fitting = [[request for request in requests if self._fits(request)] for requests in left]
                answers = _in_order(workers, fitting, [self._decoding(chunk) for chunk in chunks_left])
                for chunk, requests, (completions, seconds) in zip(chunks_left, left, answers, strict=True):
                    results.append(self._rows(tokenizer, chunk, requests, self._filled(requests, completions), seconds))
                    advance(len(chunk.problems))
            finally:
                for worker in workers:
                    ray.kill(worker)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _max_length(self, path: Path, asked: Sequence[Sequence[PromptRequest]]) -> int:
        """Tokens of the longest prompt that is answered and a completion. The same however much is left to do."""
        rollout = self._config.rollout
        fitting = [len(request.prompt_token_ids) for part in asked for request in part if self._fits(request)]
        length = max(fitting, default=1) + rollout.max_completion_length
        limit = json.loads((path / "config.json").read_text()).get("max_position_embeddings")
        if isinstance(limit, int) and length > limit:
            raise ConfigError(
                f"rollout.max_prompt_length and rollout.max_completion_length must fit {self._model.label} together, "
                f"which has {limit} positions, got {length} tokens for its longest prompt and a completion. Lower one."
            )
        return length

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
        """With an empty completion, cut off at once, for prompts that are too long for the engine."""
        answered, empty = iter(completions), Completion((), (), "", "length")
        return [next(answered) if self._fits(r) else (empty,) * len(r.seeds) for r in requests]

    def _start(self, settings: ModelConfig, longest: int) -> list[Any]:
        rollout = self._config.rollout
        arguments = (rollout, settings, longest, min(rollout.prompts_per_chunk * rollout.num_samples, MAX_SEQUENCES))
        return [
            make_actor(EvalWorker, self._directory, f"rollout_{index}", **engine_options(rollout)).remote(
                *arguments, _no_weights
            )
            for index in range(rollout.num_workers)
        ]

    def _decoding(self, chunk: Chunk) -> Decoding:
        rollout = self._config.rollout
        stop = self._prompters[chunk.dataset].stop
        return Decoding(rollout.temperature, rollout.top_p, rollout.top_k, rollout.max_completion_length, stop)

    def _rows(
        self,
        tokenizer: Any,
        chunk: Chunk,
        requests: Sequence[PromptRequest],
        answers: Sequence[tuple[Completion, ...]],
        seconds: float,
    ) -> list[dict[str, Any]]:
        """Rows of eval_results.jsonl. Seconds of a completion: its share, by tokens, of those of the chunk."""
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


def engine_model(path: Path, loading: LoadingConfig) -> ModelConfig:
    return ModelConfig(name=str(path), dtype=loading.dtype, trust_remote_code=loading.trust_remote_code)


def _no_weights(weight_id: Any) -> Any:
    raise LookupError(f"an evaluation has the weights of its model's files only, weights {weight_id} were asked for")


def _in_order(
    workers: Sequence[Any], asked: Sequence[list[PromptRequest]], decodings: Sequence[Decoding]
) -> Iterator[tuple[list[tuple[Completion, ...]], float]]:
    """Answers of every chunk, in order. An engine gets its next chunk when it has answered one."""
    pending: dict[Any, tuple[int, Any]] = {}
    answered: dict[int, Any] = {}
    to_ask = iter(zip(range(len(asked)), asked, decodings, strict=True))
    free = [worker for _ in range(CHUNKS_PER_ENGINE) for worker in workers]
    for position in range(len(asked)):
        while position not in answered:
            for index, requests, decoding in islice(to_ask, len(free)):
                worker = free.pop(0)
                pending[worker.answer.remote(requests, decoding)] = index, worker
            (ready, *_), _ = ray.wait(list(pending), num_returns=1)
            index, worker = pending.pop(ready)
            answered[index] = _get(ready)
            free.append(worker)
        yield answered.pop(position)


def _get(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, GradusError):
            raise cause from None
        logger.exception("an engine failed")
        lines = [line for line in str(cause or error).strip().splitlines() if line.strip()]
        raise ClusterError(
            f"an engine failed: {lines[-1].strip()[:300] if lines else type(error).__name__}. The whole story is in "
            "logs/ of the run directory; --resume goes on from there."
        ) from None


def _grader(config: EvaluationConfig) -> Grader:
    grading = config.grading
    return Grader(grading.num_children, grading.timeout_s, grading.memory_limit_mib)


@contextmanager
def _progress_shown(chunks: Sequence[Chunk], done: int) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, else a line now and then. What is yielded is told how many problems were answered."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    total, already = sum(len(c.problems) for c in chunks), sum(len(c.problems) for c in chunks[:done])
    if sys.stdout.isatty():
        columns = (
            TextColumn("answered"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            task = progress.add_task("answered", total=total, completed=already)
            yield lambda count: progress.advance(task, count)
        return
    start, answered = time.monotonic(), already

    def advance(count: int) -> None:
        nonlocal answered
        answered += count
        elapsed = time.monotonic() - start
        left = elapsed / max(answered - already, 1) * (total - answered)
        print(f"answered {answered}/{total} problems in {elapsed:.0f} s, about {left:.0f} s left", flush=True)

    yield advance
