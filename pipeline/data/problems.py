"""Turns the rows of a data set into problems: prompt, gold answer, worked solution, level, type and id."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pipeline.config import DataConfig
from pipeline.config.data import SYSTEM_PROMPT
from pipeline.data import embedded
from pipeline.data.answers import read_answer, worked_solution
from pipeline.data.rows import Row
from pipeline.data.sources import check_hub_data, embedded_rows, is_embedded, iter_rows, local_path, split_expression
from pipeline.data.writing import writing_tasks
from pipeline.errors import ConfigError, DataError
from pipeline.templates import PromptTemplate
from pipeline.types import Message, Problem, SplitName

logger = logging.getLogger(__name__)


def load_problems(config: DataConfig, split: SplitName) -> list[Problem]:
    """The problems of a split, in the order of the data set.

    ``config.name`` is an embedded set, such as ``embedded:arithmetic``; a directory of
    ``<split>.parquet|jsonl`` or a clone of a hub data set; one such file, whose only split is called ``train`` (so
    ``train[:90%]`` and ``train[90%:]`` divide it); or the name of a hub data set. Rows without a question or a gold
    answer are left out and counted in a warning.

    Raises:
        DataError: no such data set, split or field, or no usable row.
        ConfigError: ``config.prompt_template`` lacks the question or gives the answer away.
    """
    return list(iter_problems(config, split))


def iter_problems(config: DataConfig, split: SplitName) -> Iterator[Problem]:
    """The problems of ``load_problems``, one at a time.

    Raises:
        DataError, ConfigError: as load_problems. A lack of usable rows or of a field is known only at the end.
    """
    num_problems = num_skipped = 0
    for row, problem in problem_rows(config, split):
        if problem:
            num_problems += 1
            yield from writing_tasks(problem, _steps(row, config), config.write) if config.write else (problem,)
        else:
            num_skipped += 1
    if not num_problems:
        raise DataError(
            f"data {config.name} must have rows with a question and a gold answer, and has none of "
            f"{split_expression(config, split)}."
        )
    if num_skipped:
        logger.warning("%s, %s: left out %d of %d rows", config.name, split, num_skipped, num_problems + num_skipped)


def _steps(row: Row, config: DataConfig) -> str | None:
    """The worked solution as the data has it."""
    config = _with_own_fields(config)
    in_answer = read_answer(row.text(config.fields.answer), config)[0]
    return (row.text(config.fields.solution) if config.fields.solution else in_answer) or None


def problem_rows(
    config: DataConfig, split: SplitName, columns: Sequence[str] = ()
) -> Iterator[tuple[Row, Problem | None]]:
    """Every row of a split with its problem; None for a row without a question or a gold answer.

    Args:
        columns: further columns that the rows have, if the data has them.

    Raises:
        DataError, ConfigError: as load_problems.
    """
    template = prompt_template(_with_own_fields(config))
    named = [name for name in (*template.fields, template.completion) if name] if template else []
    if is_embedded(config):
        rows = embedded_rows(config, split)
        config = _with_own_fields(config)
        _check_embedded_template(named, config)
    else:
        rows = iter_rows(config, split_expression(config, split), named, columns)
    ids: dict[str, int] = {}
    for row in rows:
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
        train, held_out = (sum(1 for _ in iter_problems(config, split)) for split in get_args(SplitName))
        return f"{config.name}: {train} training and {held_out} held-out problems"
    return check_hub_data(config)


def question_alone(question: str | tuple[Message, ...], config: DataConfig) -> Problem:
    """A question that belongs to no data set, asked like those of ``config``.

    Raises:
        ConfigError: as load_problems, the template names a field besides the question, or there are several messages.
    """
    config = _with_own_fields(config)
    template, name = prompt_template(config), config.fields.question
    if template is None:
        return Problem(id="question", prompt=_chat(question, config), gold="")
    if others := sorted(set(template.fields) - {name}):
        raise ConfigError(f"data.prompt_template must name {name} alone to ask a question, got {', '.join(others)}.")
    if not isinstance(question, str) and len(question) > 1:
        raise ConfigError(
            f"a question of {len(question)} messages must be asked as a chat: a plain prompt holds one. Set "
            "prompt.style=chat."
        )
    text = question if isinstance(question, str) else question[0]["content"]
    return Problem(id="question", prompt=_chat(text, config), gold="", prompt_text=template.render({name: text}))


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


def _check_embedded_template(named: Sequence[str], config: DataConfig) -> None:
    columns = [name for name in config.fields.model_dump().values() if name]
    if missing := [name for name in named if name not in columns]:
        raise DataError(
            f"data {config.name} has no field {', '.join(missing)}: it has {', '.join(columns)}. Change "
            "data.prompt_template."
        )


def _problem(
    row: Row, config: DataConfig, template: PromptTemplate | None, split: SplitName, ids: dict[str, int]
) -> Problem | None:
    fields = config.fields
    if config.layout == "conversations":
        return conversation_problem(row, config, split, ids)
    messages = None if template else row.messages(fields.question)
    question = messages[-1]["content"] if messages else row.question(fields.question)
    reasoning, gold = read_answer(row.text(fields.answer), config)
    if not question.strip() or not gold:
        return None
    if fields.solution:
        reasoning = row.text(fields.solution)
    solution = worked_solution(reasoning, gold) if reasoning else None
    prompt_text = None
    if template:
        prompt_text = template.render({name: row.text(name) for name in template.fields})
        solution = row.text(template.completion or fields.solution or fields.answer) or None
    asked = messages or question
    return Problem(
        id=_id(row, asked, config, split, ids),
        prompt=_chat(asked, config),
        gold=gold,
        solution=solution,
        prompt_text=prompt_text,
        **_kind(row, config),
    )


def conversation_problem(row: Row, config: DataConfig, split: SplitName, ids: dict[str, int]) -> Problem | None:
    """A conversation as a problem: its last turn is the solution and holds the gold answer. None if it holds none.

    Raises:
        DataError: it is no conversation.
    """
    *asked, last = row.conversation(config.fields.question)
    _, gold = read_answer(last["content"].strip(), config)
    if not gold:
        return None
    return Problem(
        id=_id(row, tuple(asked), config, split, ids),
        prompt=_chat(tuple(asked), config),
        gold=gold,
        solution=last["content"],
        learns_all_turns=any(message["role"] == "assistant" for message in asked),
        **_kind(row, config),
    )


def _id(row: Row, asked: str | tuple[Message, ...], config: DataConfig, split: SplitName, ids: dict[str, int]) -> str:
    text = asked if isinstance(asked, str) else "\n".join(message["content"] for message in asked)
    made = f"{split}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return unique_name(row.text(config.fields.id) or made, ids)


def _kind(row: Row, config: DataConfig) -> dict[str, Any]:
    return {
        "level": row.text(config.fields.level) or None,
        "type": row.text(config.fields.type) or None,
        "source": row.text(config.fields.source) or config.name,
    }


def _chat(question: str | tuple[Message, ...], config: DataConfig) -> tuple[Message, ...]:
    """The messages of a question. See ``DataConfig.system_prompt``."""
    if isinstance(question, str):
        messages: tuple[Message, ...] = ({"role": "user", "content": question},)
        has_system = not config.system_prompt
    else:
        messages = question
        has_system = config.system_prompt in ("", SYSTEM_PROMPT) or any(m["role"] == "system" for m in question)
    return messages if has_system else ({"role": "system", "content": config.system_prompt}, *messages)
