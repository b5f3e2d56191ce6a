"""Runs an evaluation: every model answers every problem, and the answers become a report."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from actors.driver.actor_plan import check_cache, plan_engines
from actors.driver.cluster import connected_ray, wait_for_room
from actors.driver.engine_job import prepared, progress_shown, read_job_arguments, resumable
from actors.driver.engines import check_length, engine_model
from actors.driver.examination import Examination
from actors.driver.training_guard import TrainingGuard
from pipeline.cli import JobArguments
from pipeline.config import EvaluationConfig
from pipeline.errors import GradusError
from pipeline.evaluation.datasets import Loaded, load_data_set
from pipeline.evaluation.evaluation_report import write_evaluation_report
from pipeline.evaluation.merging import check_fit
from pipeline.evaluation.models import EvalModel, find_model, unique_labels
from pipeline.evaluation.prompts import Prompter, make_prompter
from pipeline.evaluation.record import RECORD_FILE, EvaluationRecord, read_record
from pipeline.evaluation.results import Chunk, ResultsFile
from pipeline.models.context import context_length, read_model_config
from pipeline.models.device import choose_dtype
from pipeline.models.tokenizer import load_tokenizer
from pipeline.runs.checkpoints import kept
from pipeline.runs.logs import log_to_file
from pipeline.runs.notices import notices_shown
from pipeline.verifier import Grader

logger = logging.getLogger(__name__)


def read_evaluation_arguments(arguments: JobArguments) -> tuple[EvaluationConfig, Path | None]:
    """As ``read_job_arguments``."""
    return read_job_arguments(arguments, EvaluationConfig, RECORD_FILE, read_record)


@dataclass(frozen=True)
class EvaluationPlan:
    """All that an evaluation will ask, made before anything starts."""

    config: EvaluationConfig
    """With ``loading.dtype`` decided."""
    models: list[EvalModel]
    prompters: dict[tuple[str, str], Prompter]
    """By label of the model and name of the data set."""
    guard: TrainingGuard
    chunks: list[Chunk]
    """In the order of the results."""
    record: EvaluationRecord


def run_evaluation(config: EvaluationConfig, directory: Path | None = None) -> Path:
    """Answer every problem that has no answer yet, then write the summary and the report.

    Args:
        directory: an evaluation to resume. None creates one, once everything else is known to be available.

    Returns:
        The evaluation's directory.

    Raises:
        GradusError: something the configuration names is unavailable, or an engine failed.
    """
    with ExitStack() as held:
        plan = _plan_evaluation(config, directory, held)
        with connected_ray():
            wait_for_room(plan_engines(plan.config.rollout), plan.config.limits.placement_s)
            directory = prepared(plan.config, plan.record, directory, held)
            print(f"run directory: {directory}", flush=True)
            log_to_file(directory, "driver")
            results = ResultsFile(directory)
            num_done = results.num_done(plan.chunks, plan.config.rollout.num_samples)
            with resumable(directory):
                try:
                    _answer_all(plan, directory, results, num_done)
                except GradusError:
                    with suppress(GradusError):  # the answers so far are worth a report
                        write_evaluation_report(directory)
                    raise
        write_evaluation_report(directory)
    return directory


def _plan_evaluation(config: EvaluationConfig, directory: Path | None, held: ExitStack) -> EvaluationPlan:
    """Find models and data, and split the problems into chunks.

    Args:
        held: keeps the runs of the models from deleting their checkpoints.
    """
    dtype = choose_dtype(config.loading.dtype, on_gpu=config.rollout.num_gpus > 0)
    config = config.model_copy(update={"loading": config.loading.model_copy(update={"dtype": dtype})})
    models = _find_models(config, directory)
    for model in models:
        if model.kind == "checkpoint":
            held.enter_context(kept(model.path))
    loaded = [load_data_set(name, config) for name in config.dataset]
    prompters = checked_prompters(config, models, loaded)
    guard = TrainingGuard(config, models)
    loaded = [guard.without_seen(data) for data in loaded] if config.guard.leave_out else loaded
    record = EvaluationRecord.of(config, models, loaded, prompters, guard.notes)
    return EvaluationPlan(config, models, prompters, guard, plan_chunks(config, models, loaded), record)


def _answer_all(plan: EvaluationPlan, directory: Path, results: ResultsFile, done: int) -> None:
    """Every model answers its chunks, except for the first ``done`` of all chunks."""
    counted = plan.chunks, plan.chunks[:done]
    with (
        notices_shown(directory),
        progress_shown("answered", *(sum(len(c.problems) for c in part) for part in counted)) as advance,
        _grader(plan.config) as grader,
    ):
        for model in plan.models:
            own = [chunk for chunk in plan.chunks if chunk.model == model.label]
            num_done = min(max(done - plan.chunks.index(own[0]), 0), len(own))
            prompters = {data: prompter for (label, data), prompter in plan.prompters.items() if label == model.label}
            if num_done < len(own):
                logger.info("%s answers %d chunks of %d", model.label, len(own) - num_done, len(own))
                examination = Examination(plan.config, model, prompters, plan.guard, grader, directory)
                examination.run(own, num_done, results, advance)


def _find_models(config: EvaluationConfig, directory: Path | None) -> list[EvalModel]:
    """The models to evaluate; when resuming, those it started with: ``checkpoint_last`` may have moved on."""
    named = list(unique_labels(config.model))
    if directory is None:
        return [find_model(label, name, config.loading) for label, name in named]
    paths = {model["label"]: model["path"] for model in read_record(directory)["models"]}
    return [replace(find_model(label, paths.get(label, name), config.loading), name=name) for label, name in named]


def checked_prompters(
    config: EvaluationConfig, models: Sequence[EvalModel], loaded: Sequence[Loaded]
) -> dict[tuple[str, str], Prompter]:
    """The prompters by model label and data set name, after checking that every model can be asked with its own. If one
    failed later, the other models' answers would not be reported.

    Raises:
        GradusError: a model does not fit its base, its tokenizer, chat template or length does not fit a prompt, or the
            engines' cache does not fit their memory.
    """
    check_cache(config.rollout)
    prompters = {(m.label, d.name): make_prompter(d, config, m.run_config()) for m in models for d in loaded}
    for model in models:
        check_fit(model, config.loading)
        path = model.base or model.path
        own = [(prompters[model.label, data.name], data) for data in loaded]
        chat = any(prompter.style == "chat" for prompter, _ in own)
        tokenizer = load_tokenizer(path, engine_model(path, config.loading), chat=chat)
        limit = context_length(read_model_config(path, trust_remote_code=config.loading.trust_remote_code))
        for prompter, data in own:
            for problem in {tuple(m["role"] for m in p.messages): p for p in data.problems}.values():
                prompter.check(tokenizer, problem, model.name)
            num_tokens = len(prompter.token_ids(tokenizer, data.problems[0]))
            if num_tokens <= config.rollout.max_prompt_length:
                check_length(config.rollout, model.label, num_tokens, limit)
    return prompters


def plan_chunks(config: EvaluationConfig, models: Sequence[EvalModel], loaded: Sequence[Loaded]) -> list[Chunk]:
    """All chunks, in the order of the results."""
    size = config.rollout.prompts_per_chunk
    return [
        Chunk(model.label, data.name, tuple(data.problems[start : start + size]))
        for model in models
        for data in loaded
        for start in range(0, len(data.problems), size)
    ]


def _grader(config: EvaluationConfig) -> Grader:
    grading = config.grading
    return Grader(grading.num_children, grading.timeout_s, grading.memory_limit_mib)
