"""One evaluation, from the command line's settings to its files."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.data.omcq import ChoiceQuestion, read_questions
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.memory.asking import Asker, Asking, Row
from pipeline.evaluation.memory.conditions import CONDITIONS, chosen_conditions, make_banks, swapped_objects
from pipeline.evaluation.memory.forgetting import forgetting
from pipeline.evaluation.memory.loading import Evaluated, Source, load_evaluated
from pipeline.evaluation.memory.memory_page import ANSWERS_FILE, memory_page
from pipeline.evaluation.memory.summary import Summary, metrics_row, summarize, use_of_bank
from pipeline.files import whole_directory, write_atomic, write_json, write_jsonl
from pipeline.models.tokenizer import end_ids
from pipeline.reports import page
from pipeline.seeds import derive_seed

logger = logging.getLogger(__name__)
SUMMARY_FILE, PAGE_FILE = "eval_results.json", "memory.html"


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of ``jobs/evaluate_memory.py``."""

    source: Source
    questions: Path
    output: Path
    train_questions: Path | None = None
    """Questions from which the most frequent object of each relation is known."""
    conditions: Sequence[str] = ()
    """Empty: all that are possible."""
    max_questions: int | None = None
    """Drawn at random by the seed. None: all."""
    texts: Sequence[str] = ()
    """Data sets whose perplexity is measured."""
    data_root: str | None = None
    """Directory with local copies of registered data sets."""
    max_texts: int = 200
    max_text_tokens: int = 1024
    """Longer texts are left out."""
    batch_size: int = 32
    max_new_tokens: int = 24
    seed: int = 0
    force: bool = False

    def check(self) -> None:
        """Raises ConfigError or DataError."""
        for name in ("max_questions", "max_texts", "max_text_tokens", "batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if self.output.exists() and not (self.force and self.output.is_dir()):
            raise DataError(f"output {self.output} must not exist yet. Choose another --output, or add --force.")


def evaluate_memory(settings: EvaluationSettings) -> Summary:
    """Ask all questions, and write eval_results.json, answers.jsonl and memory.html, all or nothing.

    Raises:
        ConfigError, DataError, ModelError, CheckpointError: something cannot be read, or does not fit together.
    """
    settings.check()
    questions = _drawn(read_questions(settings.questions), settings)
    training = read_questions(settings.train_questions) if settings.train_questions else []
    evaluated = load_evaluated(settings.source, settings.output.resolve().parent / "data_cache")
    started = time.monotonic()
    summary, rows = ask_questions(evaluated, questions, training, settings)
    summary["seconds"] = time.monotonic() - started
    _write(settings, summary, rows, evaluated)
    return summary


def ask_questions(
    evaluated: Evaluated,
    questions: Sequence[ChoiceQuestion],
    training: Sequence[ChoiceQuestion],
    settings: EvaluationSettings,
) -> tuple[Summary, list[Row]]:
    """The summary, and the rows of answers.jsonl."""
    names = chosen_conditions(settings.conditions, evaluated.memory, objects=bool(evaluated.knowledge))
    _check_entries(evaluated, questions)
    objects = swapped_objects(questions, settings.seed)
    banks = {CONDITIONS[name].bank for name in names}
    memory, knowledge = evaluated.memory, evaluated.knowledge
    made = make_banks(memory, banks, knowledge, objects, evaluated.tokenizer, settings.seed) if memory else {}
    limits = {"batch_size": settings.batch_size, "max_new_tokens": settings.max_new_tokens}
    asking = Asking(names, end_ids(evaluated.model, evaluated.tokenizer), evaluated.data, **limits)
    asker = Asker(evaluated.model, evaluated.tokenizer, asking, made, objects)
    rows = asker.ask(questions)
    text_limits = settings.data_root, settings.max_texts, settings.seed, settings.max_text_tokens
    summary = {
        "model": evaluated.name,
        "num_entries": len(evaluated.texts),
        **summarize(rows, questions, training),
        "bank": use_of_bank(asker.counts),
        "forgetting": forgetting(evaluated, settings.texts, *text_limits),
    }
    return summary | {"metrics": metrics_row(summary)}, rows


def _drawn(questions: Sequence[ChoiceQuestion], settings: EvaluationSettings) -> Sequence[ChoiceQuestion]:
    if settings.max_questions is None or settings.max_questions >= len(questions):
        return questions
    order = sorted(questions, key=lambda question: derive_seed(settings.seed, "questions", question.question_id))
    drawn = {question.question_id for question in order[: settings.max_questions]}
    return [question for question in questions if question.question_id in drawn]


def _check_entries(evaluated: Evaluated, questions: Sequence[ChoiceQuestion]) -> None:
    """Raises DataError for questions that belong to other knowledge."""
    if not questions:
        raise DataError("--questions must have questions, got none.")
    if evaluated.memory is None:
        return
    for question in questions:
        text = evaluated.texts[question.entry_id] if question.entry_id < len(evaluated.texts) else None
        entry = evaluated.knowledge[question.entry_id] if text and evaluated.knowledge else None
        is_other = entry and (entry.subject, entry.object) != (question.subject, question.object)
        if text is None or is_other:
            raise DataError(
                f"question {question.question_id} must be about entry {question.entry_id} of the knowledge, "
                f"{text or 'which does not exist'!r}: the files were not made together. Name the "
                "knowledge of these questions with --knowledge."
            )


def _write(settings: EvaluationSettings, summary: Summary, rows: Sequence[Row], evaluated: Evaluated) -> None:
    config = _plain(asdict(settings))
    record = {**summary, "settings": config, "versions": page.versions()}
    with page.writing_to(settings.output, "Choose another --output."), whole_directory(settings.output) as folder:
        write_json(folder / SUMMARY_FILE, record)
        write_jsonl(folder / ANSWERS_FILE, rows)
        html = memory_page(settings.output.name, summary, rows, evaluated.texts, config)
        write_atomic(folder / PAGE_FILE, html.encode())


def _plain(value: Any) -> Any:
    """Settings that JSON can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.model_dump() if hasattr(value, "model_dump") else str(value) if isinstance(value, Path) else value
