"""Tasks to write problems: their prompts, and the format of a written problem."""

import re
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from pipeline.config import WritingConfig
from pipeline.data.stories import read_story, vary
from pipeline.seeds import derive_seed
from pipeline.types import Message, Problem, WritingKind, WritingTask

_WITHOUT_LEVEL = re.compile(r",? *\{level\}")
"""The part of a prompt that is left out if there is no level, or if the level's words are empty."""


def written_text(statement: str, solution: str, answer: str) -> str:
    """A problem in the format of a completion."""
    return (
        f"<problem>\n{statement.strip()}\n</problem>\n<solution>\n{solution.strip()}\n</solution>\n"
        f"<answer>{answer.strip()}</answer>"
    )


def writing_tasks(problem: Problem, steps: str | None, config: WritingConfig) -> Iterator[Problem]:
    """The tasks for which a solved problem is the example or the original.

    Args:
        problem: has chat messages, of which the last is the statement.
        steps: the worked solution as it is in the data. None: there is none, and a new problem has no example.
    """
    example = written_text(problem.question, steps, problem.gold) if steps else None
    for kind in config.prompts:
        if kind == "new":
            yield replace(writing_task(kind, problem, config), solution=example)
        else:
            yield variation_task(kind, problem, config)


def variation_task(kind: WritingKind, problem: Problem, config: WritingConfig) -> Problem:
    """The task to vary a problem. It has an example if the problem is a story."""
    task = writing_task(kind, problem, config)
    if read_story(problem.question) is None:
        return task
    try:
        story = vary(problem.question, kind, Random(derive_seed(task.id)))
    except ValueError:  # no other numbers fit
        return task
    answer = str(story.answer)
    return replace(task, gold=answer, solution=written_text(story.statement, story.solution, answer))


def writing_task(kind: WritingKind, problem: Problem, config: WritingConfig) -> Problem:
    """A task of some kind, without an example."""
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
    """A task to write a new problem."""
    empty = Problem(id=id, prompt=({"role": "user", "content": ""},), gold="", level=level, type=topic)
    return replace(writing_task("new", empty, config), id=id)


def _messages(kind: WritingKind, problem: Problem, config: WritingConfig) -> tuple[Message, ...]:
    level = problem.level or ""
    level = config.levels.get(level, level)
    prompt = config.prompts[kind] if level else _WITHOUT_LEVEL.sub("", config.prompts[kind])
    text = prompt.format(topic=problem.type or "any topic", level=level, original=problem.question)
    messages: tuple[Message, ...] = ({"role": "user", "content": text},)
    return ({"role": "system", "content": config.system_prompt}, *messages) if config.system_prompt else messages
