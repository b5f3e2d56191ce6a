"""Turns the rows of a data set into problems: prompt, gold answer, worked solution, level, type and id."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.config import DataConfig
from pipeline.data import embedded
from pipeline.data.answers import as_text, read_answer, worked_solution
from pipeline.data.sources import (
    Row,
    check_hub_data,
    embedded_rows,
    is_embedded,
    local_path,
    open_rows,
    split_expression,
)
from pipeline.errors import ConfigError, DataError
from pipeline.templates import PromptTemplate
from pipeline.types import Message, Problem, SplitName

logger = logging.getLogger(__name__)


def load_problems(config: DataConfig, split: SplitName) -> list[Problem]:
    """The problems of a split, in the order of the data set.

    ``config.name`` is ``embedded:arithmetic`` or ``embedded:operations``; a directory of
    ``<split>.parquet|jsonl``; one such file, whose only split is called ``train`` (so ``train[:90%]`` and
    ``train[90%:]`` divide it); or the name of a hub data set. Rows without a question or a gold answer are left
    out and counted in a warning.

    Raises:
        DataError: no such data set, split or field, or no usable row.
        ConfigError: ``config.prompt_template`` lacks the question or gives the answer away.
    """
    return list(iter_problems(config, split))


def iter_problems(config: DataConfig, split: SplitName, scratch: Path | None = None) -> Iterator[Problem]:
    """The problems of ``load_problems``, one at a time.

    Args:
        scratch: see open_rows.

    Raises:
        DataError, ConfigError: as load_problems. A lack of usable rows is known only at the end.
    """
    num_problems = num_skipped = 0
    for _, problem in problem_rows(config, split, scratch):
        if problem:
            num_problems += 1
            yield problem
        else:
            num_skipped += 1
    if not num_problems:
        raise DataError(
            f"data {config.name} must have rows with a question and a gold answer, and has none of "
            f"{split_expression(config, split)}."
        )
    if num_skipped:
        logger.warning("%s, %s: left out %d of %d rows", config.name, split, num_skipped, num_problems + num_skipped)


def problem_rows(
    config: DataConfig, split: SplitName, scratch: Path | None = None
) -> Iterator[tuple[Row, Problem | None]]:
    """Every row of a split with its problem; None for a row without a question or a gold answer.

    Args:
        scratch: see open_rows.

    Raises:
        DataError, ConfigError: as load_problems.
    """
    opened: AbstractContextManager[Iterable[Row]]
    if is_embedded(config):
        opened = nullcontext(embedded_rows(config, split))
        config = _with_own_fields(config)
    else:
        opened = open_rows(config, split_expression(config, split), scratch=scratch)
    ids: dict[str, int] = {}
    with opened as rows:
        template = prompt_template(config)
        for index, row in enumerate(rows):
            if template and index == 0:
                _check_template_fields(template, list(row), config)
            yield row, _problem(row, config, template, split, ids)


def check_data(config: DataConfig) -> str:
    """One line on what ``load_problems`` would load. Downloads nothing.

    Local and embedded data is read and counted. For a hub data set only its existence is checked.

    Raises:
        DataError: the data set cannot be found or used.
        ConfigError: as load_problems.
    """
    prompt_template(_with_own_fields(config))
    if is_embedded(config) or local_path(config.name):
        train, held_out = load_problems(config, "train"), load_problems(config, "eval")
        return f"{config.name}: {len(train)} training and {len(held_out)} held-out problems"
    return check_hub_data(config)


def question_alone(question: str, config: DataConfig) -> Problem:
    """A question that belongs to no data set, asked like those of ``config``.

    Raises:
        ConfigError: as load_problems, or the template names a field besides the question.
    """
    config = _with_own_fields(config)
    template, name = prompt_template(config), config.fields.question
    if template and (others := sorted(set(template.fields) - {name})):
        raise ConfigError(f"data.prompt_template must name {name} alone to ask a question, got {', '.join(others)}.")
    text = template.render({name: question}) if template else None
    return Problem(id="question", prompt=_messages(question, config), gold="", prompt_text=text)


def prompt_template(config: DataConfig) -> PromptTemplate | None:
    """The configured template; None for the model's chat template.

    Raises:
        ConfigError: it lacks the question or gives the answer away.
    """
    if config.prompt_template is None:
        return None
    fields = config.fields
    template = PromptTemplate.parse(config.prompt_template, fields.question)
    if fields.question not in template.fields:
        raise ConfigError(
            f"data.prompt_template must hold the question, {{{fields.question}}}, got fields "
            f"{', '.join(template.fields) or 'none'}. Change it or data.fields.question."
        )
    if answers := [name for name in template.fields if name in (fields.answer, fields.solution, template.completion)]:
        raise ConfigError(
            f"data.prompt_template must not give the answer away, got {{{answers[0]}}} inside it. The text that SFT "
            "trains on may be its very end, with nothing after it, not even a new line (in YAML: `|-`)."
        )
    return template


def unique_name(name: str, taken: dict[str, int]) -> str:
    """The name itself, or the first of name-2, name-3 and so on that is free. Marks it as taken.

    Args:
        taken: every name so far, with the highest number tried for it.
    """
    candidate, copy = name, taken.get(name, 1)
    while candidate in taken:
        copy += 1
        candidate = f"{name}-{copy}"
    taken[name] = copy
    taken.setdefault(candidate, 1)
    return candidate


def _with_own_fields(config: DataConfig) -> DataConfig:
    """Embedded data has fields of its own, whatever the configuration says."""
    if not is_embedded(config):
        return config
    return config.model_copy(update={"fields": embedded.FIELDS, "answer_format": "plain"})


def _check_template_fields(template: PromptTemplate, columns: list[str], config: DataConfig) -> None:
    named = [*template.fields, template.completion]
    if missing := [f"{{{name}}}" for name in named if name and name not in columns]:
        raise DataError(
            f"data {config.name} has no field for {', '.join(missing)} of data.prompt_template: it has "
            f"{', '.join(columns)}. Write the template with these."
        )


def _problem(
    row: Row, config: DataConfig, template: PromptTemplate | None, split: SplitName, ids: dict[str, int]
) -> Problem | None:
    fields = config.fields
    question, (reasoning, gold) = as_text(row[fields.question]), read_answer(as_text(row[fields.answer]), config)
    if not question or not gold:
        return None
    if fields.solution:
        reasoning = as_text(row[fields.solution])
    solution = worked_solution(reasoning, gold) if reasoning else None
    prompt_text = None
    if template:
        prompt_text = template.render({name: as_text(row[name]) for name in template.fields})
        solution = as_text(row[template.completion or fields.solution or fields.answer]) or None
    digest = hashlib.sha256(question.encode()).hexdigest()[:12]
    return Problem(
        id=unique_name(as_text(row[fields.id]) if fields.id else f"{split}-{digest}", ids),
        prompt=_messages(question, config),
        gold=gold,
        solution=solution,
        level=as_text(row[fields.level]) or None if fields.level else None,
        type=as_text(row[fields.type]) or None if fields.type else None,
        source=config.name,
        prompt_text=prompt_text,
    )


def _messages(question: str, config: DataConfig) -> tuple[Message, ...]:
    system: tuple[Message, ...] = ({"role": "system", "content": config.system_prompt},) if config.system_prompt else ()
    return (*system, {"role": "user", "content": question})
