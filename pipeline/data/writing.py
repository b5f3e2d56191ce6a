"""Tasks to write problems: their prompts, and the form in which a problem is written."""

import re
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from pipeline.config import WritingConfig
from pipeline.data.stories import read_story, vary
from pipeline.seeds import derive_seed
from pipeline.types import Message, Problem, WritingKind, WritingTask

_WITHOUT_LEVEL = re.compile(r",? *\{level\}")
"""The part of a prompt that is left out if there is no level, or an empty text stands for it."""


def written_text(statement: str, solution: str, answer: str) -> str:
    """A problem in the form of a completion."""
    return (
        f"<problem>\n{statement.strip()}\n</problem>\n<solution>\n{solution.strip()}\n</solution>\n"
        f"<answer>{answer.strip()}</answer>"
    )


def writing_tasks(problem: Problem, steps: str | None, config: WritingConfig) -> Iterator[Problem]:
    """The tasks that a solved problem is an example or an original of.

    Args:
        problem: with chat messages; its last one is the statement.
        steps: its worked solution as the data has it; None: it has none, and tasks have no example.
    """
    example = written_text(problem.question, steps, problem.gold) if steps else None
    for kind in config.prompts:
        if kind == "new":
            yield replace(writing_task(kind, problem, config), solution=example)
        else:
            yield variation_task(kind, problem, config)


def variation_task(kind: WritingKind, problem: Problem, config: WritingConfig) -> Problem:
    """The task to vary a problem, with an example where one can be made: of stories."""
    task = writing_task(kind, problem, config)
    if read_story(problem.question) is None:
        return task
    try:
        story = vary(problem.question, kind, Random(derive_seed(task.id)))
    except ValueError:  # its numbers leave no room for others
        return task
    answer = str(story.answer)
    return replace(task, gold=answer, solution=written_text(story.statement, story.solution, answer))


def writing_task(kind: WritingKind, problem: Problem, config: WritingConfig) -> Problem:
    """The task without an example."""
    is_new = kind == "new"
    task = WritingTask(kind, None if is_new else problem.question, None if is_new else problem.gold)
    return replace(
        problem,
        id=f"{problem.id}-{kind}",
        prompt=_messages(kind, problem, config),
        solution=None,
        source=kind,
        prompt_text=None,
        writing=task,
    )


def new_task(topic: str, level: str, config: WritingConfig, id: str = "task") -> Problem:
    """The task to write a new problem."""
    empty = Problem(id=id, prompt=({"role": "user", "content": ""},), gold="", level=level, type=topic)
    return replace(writing_task("new", empty, config), id=id)


def _messages(kind: WritingKind, problem: Problem, config: WritingConfig) -> tuple[Message, ...]:
    level = problem.level or ""
    level = config.levels.get(level, level)
    prompt = config.prompts[kind] if level else _WITHOUT_LEVEL.sub("", config.prompts[kind])
    text = prompt.format(topic=problem.type or "any topic", level=level, original=problem.question)
    messages: tuple[Message, ...] = ({"role": "user", "content": text},)
    return ({"role": "system", "content": config.system_prompt}, *messages) if config.system_prompt else messages
