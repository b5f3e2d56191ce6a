"""Runs a generation: a trained model writes problems until enough good ones are kept as training data."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.driver.actor_plan import check_cache, plan_engines
from actors.driver.cluster import connected_ray, wait_for_room
from actors.driver.engine_job import prepared, progress_shown, read_job_arguments, resumable
from actors.driver.engine_solver import engine_solver
from actors.driver.engines import Answer, check_length, engine_files, engine_model, started_engines
from actors.reward import RewardWorker
from actors.rollout import Decoding
from pipeline.cli import JobArguments
from pipeline.config import Config, DataConfig
from pipeline.config.generation import GenerationConfig
from pipeline.data import load_problems
from pipeline.errors import ConfigError
from pipeline.evaluation.datasets import split_questions
from pipeline.evaluation.merging import check_fit
from pipeline.evaluation.models import EvalModel, find_model, unique_labels
from pipeline.evaluation.record import model_record
from pipeline.models.context import context_length, read_model_config
from pipeline.models.device import choose_dtype
from pipeline.models.tokenizer import check_prompt, load_tokenizer, prompt_token_ids
from pipeline.questions.contamination import TestSets, load_test_sets
from pipeline.questions.filters import Keeper, Similar
from pipeline.questions.generation_record import RECORD_FILE, GenerationRecord, read_generation
from pipeline.questions.progress import Progress
from pipeline.questions.quotas import Quotas, even_quotas
from pipeline.questions.rows import Row, written_rows
from pipeline.questions.tasks import Tasks
from pipeline.questions.written_files import write_generation
from pipeline.runs.checkpoints import kept
from pipeline.runs.logs import log_to_file
from pipeline.runs.notices import notices_shown
from pipeline.seeds import completion_seeds
from pipeline.types import Problem, PromptRequest, RolloutGroup, WeightId

logger = logging.getLogger(__name__)


def read_generation_arguments(arguments: JobArguments) -> tuple[GenerationConfig, Path | None]:
    """As in ``read_job_arguments``."""
    return read_job_arguments(arguments, GenerationConfig, RECORD_FILE, read_generation)


@dataclass(frozen=True)
class GenerationPlan:
    """Everything that a generation needs, prepared before anything starts."""

    config: GenerationConfig
    """The settings, with ``loading.dtype`` and sampling decided."""
    run: Config
    """The run's configuration, for prompts and rewards."""
    model: EvalModel
    tasks: Tasks
    quotas: Quotas
    test_sets: TestSets
    others: Mapping[str, Similar]
    """Data that must not be repeated."""

    @property
    def record(self) -> GenerationRecord:
        return GenerationRecord(
            model=model_record(self.model),
            run=self.run.model_dump(include={"data", "reward", "questions"}),
            cells={" ".join(cell): quota for cell, quota in self.quotas.items()},
            compared={**self.test_sets.sizes, **{name: len(texts) for name, texts in self.others.items()}},
            settings=self.config.results_key(),
        )

    def keeper(self) -> Keeper:
        gates = [term.name for term in self.run.reward.functions if term.gate]
        keep = self.config.keep or self.run.questions.keep
        return Keeper(keep, gates, self.test_sets.texts, self.others, self.quotas)


def run_generation(config: GenerationConfig, directory: Path | None = None) -> Path:
    """Write problems until there are enough or no more may be written, then write the files.

    Args:
        directory: a generation to resume. None: create one, once everything else is known to be available.

    Returns:
        The generation's directory.

    Raises:
        GradusError: something the configuration names is unavailable, or an engine failed.
    """
    with ExitStack() as held:
        plan = plan_generation(config, held)
        with connected_ray():
            wait_for_room(plan_engines(plan.config.rollout), plan.config.limits.placement_s)
            directory = prepared(plan.config, plan.record, directory, held)
            print(f"run directory: {directory}", flush=True)
            log_to_file(directory, "driver")
            progress = _progress(plan, directory)
            if progress.pending():
                with resumable(directory):
                    _write_problems(plan, directory, progress)
        settings = plan.config.model_dump(mode="json")
        write_generation(directory, progress.rows, plan.quotas, plan.test_sets, settings, asdict(plan.record))
    return directory


def plan_generation(config: GenerationConfig, held: ExitStack) -> GenerationPlan:
    """Find the model, the tasks and the test sets.

    Args:
        held: keeps the model's run from deleting the checkpoint.
    """
    check_cache(config.rollout)
    dtype = choose_dtype(config.loading.dtype, on_gpu=config.rollout.num_gpus > 0)
    config = config.model_copy(update={"loading": config.loading.model_copy(update={"dtype": dtype})})
    run, model = find_writer(config)
    config = _with_sampling(config, run)
    if model.kind == "checkpoint":
        held.enter_context(kept(model.path))
    tasks = _tasks(config, run.data)
    check_writer(config, model, [tasks.task(cell, 0, 0) for cell in tasks.cells])
    near = (config.keep or run.questions.keep).near_similarity
    reading = config.reading()
    others = {name: Similar(split_questions(name, "train", reading), near) for name in config.against}
    quotas = even_quotas(tasks.cells, config.num_problems)
    test_sets = load_test_sets(reading, near, config.allow_missing)
    return GenerationPlan(config, run, model, tasks, quotas, test_sets, others)


def _with_sampling(config: GenerationConfig, run: Config) -> GenerationConfig:
    """The settings, with sampling settings that are not given taken from the run."""
    found = {"temperature": run.rollout.temperature, "top_p": run.rollout.top_p, "top_k": run.rollout.top_k}
    missing = {name: value for name, value in found.items() if name not in config.rollout.model_fields_set}
    return config.model_copy(update={"rollout": config.rollout.model_copy(update=missing)})


def _tasks(config: GenerationConfig, data: DataConfig) -> Tasks:
    """The tasks, read only for the requested kinds, because variations take a while to make."""
    assert data.write is not None
    if missing := [kind for kind in config.kinds if kind not in data.write.prompts]:
        raise ConfigError(f"kinds must have prompts in data.write.prompts of the run, got {missing[0]} without one.")
    prompts = {kind: data.write.prompts[kind] for kind in config.kinds}
    writing = data.write.model_copy(update={"prompts": prompts})
    return Tasks(config, writing, load_problems(data.model_copy(update={"write": writing}), "train"))


def find_writer(config: GenerationConfig) -> tuple[Config, EvalModel]:
    """The configuration of the run, and the model that writes."""
    ((label, _),) = unique_labels({config.writer: config.writer})
    found = find_model(label, config.run, config.loading)
    run = found.run_config()
    if run is None or run.data.write is None:
        reason = "it belongs to no run" if run is None else "its data.write is null"
        raise ConfigError(
            f"run must have been trained to write problems, or be a checkpoint of such a run, got {config.run}: "
            f"{reason}. Train one with jobs/questions_gen.py."
        )
    return run, found if config.model is None else find_model(label, config.model, config.loading)


def check_writer(config: GenerationConfig, model: EvalModel, tasks: Sequence[Problem]) -> None:
    """Raise GradusError if the model cannot be loaded, or if its chat template or length does not fit a task."""
    check_fit(model, config.loading)
    path = model.base or model.path
    tokenizer = load_tokenizer(path, engine_model(path, config.loading), chat=True)
    for task in tasks:
        check_prompt(tokenizer, task, model.name)
    check_length(config.rollout, model.label, config.rollout.max_prompt_length, _limit(path, config))
    longest = max(len(prompt_token_ids(tokenizer, task)) for task in tasks)
    if longest > config.rollout.max_prompt_length:
        raise ConfigError(
            f"rollout.max_prompt_length must be at least that of a task, {longest} tokens, got "
            f"{config.rollout.max_prompt_length}. Raise it."
        )


def _limit(path: Path, config: GenerationConfig) -> int | None:
    return context_length(read_model_config(path, trust_remote_code=config.loading.trust_remote_code))


def _progress(plan: GenerationPlan, directory: Path) -> Progress:
    rollout = plan.config.rollout
    return Progress(
        directory,
        plan.tasks,
        plan.quotas,
        plan.keeper(),
        chunk_size=rollout.prompts_per_chunk,
        num_samples=rollout.num_samples,
        max_written=plan.config.max_written,
    )


def _write_problems(plan: GenerationPlan, directory: Path, progress: Progress) -> None:
    """Do rounds of tasks until none are pending."""
    config = plan.config
    length = engine_length(config, plan.run)
    with ExitStack() as held:
        held.enter_context(notices_shown(directory))
        advance = held.enter_context(progress_shown("kept", config.num_problems, progress.num_kept))
        path = held.enter_context(engine_files(plan.model, config.loading, directory))
        settings = engine_model(path, config.loading)
        answer = held.enter_context(started_engines(config.rollout, config.limits, settings, length, directory))
        solve = engine_solver(plan.run, config, answer, length, directory, held)
        grader = held.enter_context(closing(RewardWorker(plan.run, solve)))
        writer = _Writer(plan, load_tokenizer(path, settings, chat=True), grader)
        while chunks := progress.pending():
            writer.write(chunks, answer, lambda rows: advance(progress.add(rows)))


def engine_length(config: GenerationConfig, run: Config) -> int:
    """Maximum tokens of a prompt and its completion together, for writers and solvers."""
    length, solver = config.rollout.max_prompt_length + config.rollout.max_completion_length, run.questions.solver
    return max(length, run.rollout.max_prompt_length + solver.max_completion_length) if solver else length


class _Writer:
    """Turns tasks into requests, and the engines' answers into scored rows."""

    def __init__(self, plan: GenerationPlan, tokenizer: Any, grader: RewardWorker) -> None:
        self._plan, self._tokenizer, self._grader = plan, tokenizer, grader

    def write(self, chunks: Sequence[list[Problem]], answer: Answer, record: Callable[[list[Row]], None]) -> None:
        """Have the tasks of every chunk done, and record their rows in order."""
        all_requests = [[self._request(task) for task in chunk] for chunk in chunks]
        decoding = Decoding.from_config(self._plan.config.rollout)
        answers = answer(all_requests, [decoding] * len(chunks))
        for chunk, requests, (completions, _) in zip(chunks, all_requests, answers, strict=True):
            groups = [
                RolloutGroup(task, request.prompt_token_ids, group, WeightId(0, 0))
                for task, request, group in zip(chunk, requests, completions, strict=True)
            ]
            scored = zip(self._grader.score(groups), requests, strict=True)
            record([row for group, request in scored for row in self._rows(group, request)])

    def _request(self, task: Problem) -> PromptRequest:
        config = self._plan.config
        seeds = completion_seeds(config.seed, 0, task.id, config.rollout.num_samples)
        return PromptRequest(prompt_token_ids(self._tokenizer, task), seeds)

    def _rows(self, group: RolloutGroup, request: PromptRequest) -> list[Row]:
        terms = self._plan.run.reward.functions
        rows = written_rows(group, terms, self._plan.model.label, request.seeds)
        return [row | {"id": f"{row['id']}-{sample}", "sample": sample} for sample, row in enumerate(rows)]
