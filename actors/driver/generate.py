"""Runs a generation: a trained model writes problems until enough good ones are kept as training data."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from actors.driver.actor_plan import ActorPlan, check_cache, plan_engines
from actors.driver.checks import check_heads
from actors.driver.cluster import connected_ray, wait_for_room
from actors.driver.engine_job import prepared, progress_shown, read_job_arguments, resumable
from actors.driver.engine_solver import (
    OtherSolver,
    check_solving_length,
    engine_solver,
    find_solver,
    solving_length,
)
from actors.driver.engines import Answer, check_length, engine_files, engine_model, started_engines
from actors.engine_loop import Decoding
from actors.reward import RewardWorker
from pipeline.cli import JobArguments
from pipeline.config import Config, DataConfig, ModelConfig
from pipeline.config.generation import GenerationConfig
from pipeline.config.questions import KeepConfig
from pipeline.curriculum.keys import problems_digest
from pipeline.data import load_problems
from pipeline.errors import ConfigError
from pipeline.evaluation.datasets import split_questions
from pipeline.evaluation.merging import check_fit
from pipeline.evaluation.models import EvalModel, find_model, unique_labels
from pipeline.evaluation.record import model_record, texts_digest
from pipeline.models.context import context_length, read_model_config
from pipeline.models.device import choose_dtype
from pipeline.models.hub import resolve_model
from pipeline.models.tokenizer import Tokenizer, batch_token_ids, check_prompt, load_tokenizer, prompt_token_ids
from pipeline.questions.contamination import TestSets, load_test_sets
from pipeline.questions.filters import HELD_OUT_DATA, TRAINING_DATA, Keeper, Similar
from pipeline.questions.generation_record import RECORD_FILE, GenerationRecord, read_generation
from pipeline.questions.progress import Progress
from pipeline.questions.quotas import Quotas, even_quotas
from pipeline.questions.rewards import training_statements
from pipeline.questions.rows import Row, written_rows
from pipeline.questions.tasks import Tasks
from pipeline.questions.written_files import write_generation
from pipeline.runs.checkpoints import kept
from pipeline.runs.logs import log_to_file
from pipeline.runs.notices import notices_shown, notify
from pipeline.seeds import completion_seeds
from pipeline.types import Problem, PromptRequest, RolloutGroup, SplitName, WeightId

logger = logging.getLogger(__name__)

_TASKS_AT_ONCE = 256
"""Prompts that are encoded together."""


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
    solver: OtherSolver | None
    training_digest: str
    """Of the tasks that the run's training data is made into."""

    @property
    def actors(self) -> tuple[ActorPlan, ...]:
        engines = plan_engines(self.config.rollout)
        return (*engines, self.solver.plan(self.config.rollout)) if self.solver else engines

    @cached_property
    def record(self) -> GenerationRecord:
        return GenerationRecord(
            model=model_record(self.model),
            run=self.run.model_dump(include={"data", "reward", "questions"}),
            cells={" ".join(cell): quota for cell, quota in self.quotas.items()},
            compared={**self.test_sets.sizes, **{name: len(texts) for name, texts in self.others.items()}},
            settings=self.config.results_key(),
            digests={
                "tasks": self.training_digest,
                "test sets": _digests(self.test_sets.texts),
                "other data": _digests(self.others),
            },
            solver=self.solver.files() if self.solver else {},
            num_too_long=self.tasks.num_too_long,
        )

    def keeper(self) -> Keeper:
        gates = [term.name for term in self.run.reward.functions if term.gate]
        return Keeper(keeping(self.config, self.run), gates, self.test_sets.texts, self.others, self.quotas)


def keeping(config: GenerationConfig, run: Config) -> KeepConfig:
    """The rules for keeping a problem."""
    return config.keep or run.questions.keep


def _digests(known: Mapping[str, Similar]) -> dict[str, str]:
    return {name: texts_digest(similar.texts) for name, similar in known.items()}


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
            wait_for_room(plan.actors, plan.config.limits.placement_s)
            directory = prepared(plan.config, plan.record, directory, held)
            print(f"run directory: {directory}", flush=True)
            log_to_file(directory, "driver")
            if plan.tasks.num_too_long:
                notify(f"{plan.tasks.num_too_long} tasks are left out: they exceed rollout.max_prompt_length.")
            progress = _progress(plan, directory)
            if progress.pending():
                with resumable(directory):
                    _write_problems(plan, directory, progress)
        settings = plan.config.model_dump(mode="json")
        known = plan.test_sets, plan.others
        write_generation(directory, progress.rows, plan.quotas, *known, settings, asdict(plan.record))
    return directory


def plan_generation(
    config: GenerationConfig, held: ExitStack, find: Callable[[ModelConfig], Path | None] = resolve_model
) -> GenerationPlan:
    """Find the models, the tasks and the test sets.

    Args:
        held: keeps the model's run from deleting the checkpoint.
        find: passed to ``find_solver``.
    """
    check_cache(config.rollout)
    dtype = choose_dtype(config.loading.dtype, on_gpu=config.rollout.num_gpus > 0)
    config = config.model_copy(update={"loading": config.loading.model_copy(update={"dtype": dtype})})
    run, model = find_writer(config)
    assert run.data.write is not None
    config = _with_sampling(config, run)
    if model.kind == "checkpoint":
        held.enter_context(kept(model.path))
    solver = find_solver(run, config, find)
    training = _training_tasks(config, run.data)
    tasks = Tasks(config, run.data.write, training)
    tokenizer = check_writer(config, run, model, [tasks.task(cell, 0, 0) for cell in tasks.cells])
    tasks.leave_out_long(partial(_num_tokens, tokenizer), config.rollout.max_prompt_length)
    near, reading = keeping(config, run).near_similarity, config.reading()
    test_sets = load_test_sets(reading, near, config.allow_missing, _held_out(config, run))
    others = {name: split_questions(name, "train", reading) for name in config.against}
    if keeping(config, run).compare_with_data:
        others[TRAINING_DATA] = training_statements([*_problems(run.data, "train"), *training])
    return GenerationPlan(
        config,
        run,
        model,
        tasks,
        even_quotas(tasks.cells, config.num_problems),
        test_sets,
        {name: Similar(texts, near) for name, texts in others.items()},
        solver,
        problems_digest(training),
    )


def _held_out(config: GenerationConfig, run: Config) -> dict[str, list[str]]:
    """The run's own test problems, by the name of their data. Empty if they are not compared, or it has none."""
    if not keeping(config, run).compare_with_data or not run.eval.problems_per_level:
        return {}
    return {HELD_OUT_DATA: training_statements(_problems(run.data, "eval"))}


def _with_sampling(config: GenerationConfig, run: Config) -> GenerationConfig:
    """The settings, with sampling settings that are not given taken from the run."""
    found = {"temperature": run.rollout.temperature, "top_p": run.rollout.top_p, "top_k": run.rollout.top_k}
    missing = {name: value for name, value in found.items() if name not in config.rollout.model_fields_set}
    return config.model_copy(update={"rollout": config.rollout.model_copy(update=missing)})


def _training_tasks(config: GenerationConfig, data: DataConfig) -> list[Problem]:
    """All tasks of the run's training data, of the kinds that are asked for and of others."""
    assert data.write is not None
    if missing := [kind for kind in config.kinds if kind not in data.write.prompts]:
        raise ConfigError(f"kinds must have prompts in data.write.prompts of the run, got {missing[0]} without one.")
    return load_problems(data, "train")


def _problems(data: DataConfig, split: SplitName) -> list[Problem]:
    """The problems that tasks are made of."""
    return load_problems(data.model_copy(update={"write": None}), split)


def _num_tokens(tokenizer: Tokenizer, tasks: Sequence[Problem]) -> list[int]:
    """Count the tokens of each task's prompt."""
    parts = (tasks[start : start + _TASKS_AT_ONCE] for start in range(0, len(tasks), _TASKS_AT_ONCE))
    return [len(prompt) for part in parts for prompt in batch_token_ids(tokenizer, part)]


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


def check_writer(config: GenerationConfig, run: Config, model: EvalModel, tasks: Sequence[Problem]) -> Tokenizer:
    """The writer's tokenizer. Raises GradusError if the model cannot be loaded, or its chat template, attention
    heads or length do not fit."""
    check_fit(model, config.loading)
    path = model.base or model.path
    tokenizer: Tokenizer = load_tokenizer(path, engine_model(path, config.loading), chat=True)
    for task in tasks:
        check_prompt(tokenizer, task, model.name)
    described = read_model_config(path, trust_remote_code=config.loading.trust_remote_code)
    check_heads(described, config.rollout.tensor_parallel_size, model.name)
    check_length(config.rollout, model.label, config.rollout.max_prompt_length, context_length(described))
    if writer_solves(run):
        check_solving_length(run, described, model.name)
    return tokenizer


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
    length = writer_length(config, plan.run)
    with ExitStack() as held:
        held.enter_context(notices_shown(directory))
        advance = held.enter_context(progress_shown("kept", config.num_problems, progress.num_kept))
        path = held.enter_context(engine_files(plan.model, config.loading, directory))
        settings = engine_model(path, config.loading)
        answer = held.enter_context(started_engines(config.rollout, config.limits, settings, length, directory))
        solve = engine_solver(plan.run, config, plan.solver, settings, answer, directory, held)
        grader = held.enter_context(closing(RewardWorker(plan.run, solve)))
        writer = _Writer(plan, load_tokenizer(path, settings, chat=True), grader)
        while chunks := progress.pending():
            writer.write(chunks, answer, lambda rows: advance(progress.add(rows)))


def writer_solves(run: Config) -> bool:
    """True if the writer's engines are the solver as well."""
    return run.questions.solver is not None and run.questions.solver.model is None


def writer_length(config: GenerationConfig, run: Config) -> int:
    """Tokens of the longest prompt and completion together, of the writer's engines."""
    length = config.rollout.max_prompt_length + config.rollout.max_completion_length
    return max(length, solving_length(run)) if writer_solves(run) else length


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
            scored = [replace(group, rewards=self._grader.rewards(group)) for group in groups]
            record([row for each in zip(scored, requests, strict=True) for row in self._rows(*each)])

    def _request(self, task: Problem) -> PromptRequest:
        config = self._plan.config
        seeds = completion_seeds(config.seed, 0, task.id, config.rollout.num_samples)
        return PromptRequest(prompt_token_ids(self._tokenizer, task), seeds)

    def _rows(self, group: RolloutGroup, request: PromptRequest) -> list[Row]:
        terms = self._plan.run.reward.functions
        rows = written_rows(group, terms, self._plan.model.label, request.seeds)
        return [row | {"id": f"{row['id']}-{sample}", "sample": sample} for sample, row in enumerate(rows)]
