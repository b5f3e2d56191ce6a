"""Tasks of a generation."""

from collections.abc import Sequence

import pytest

from pipeline.config import WritingConfig
from pipeline.config.generation import GenerationConfig
from pipeline.data.writing import writing_task
from pipeline.errors import ConfigError
from pipeline.questions.quotas import Cell
from pipeline.questions.tasks import Tasks
from pipeline.types import Problem

WRITING = WritingConfig()
CONFIG = GenerationConfig(run="RUN", kinds=["new", "parameters"])
CELL = Cell("parameters", "sums", "1")


def make_tasks(*lengths: int) -> Tasks:
    """Originals of so many letters."""
    problems = [Problem(f"{n}", ({"role": "user", "content": "x" * n},), "1", level="1", type="sums") for n in lengths]
    return Tasks(CONFIG, WRITING, [writing_task("parameters", problem, WRITING) for problem in problems])


def letters(tasks: Sequence[Problem]) -> list[int]:
    return [len(task.prompt[-1]["content"]) for task in tasks]


def originals(tasks: Tasks, count: int) -> set[str]:
    return {tasks.task(CELL, 0, turn).writing.original or "" for turn in range(count)}  # type: ignore[union-attr]


def test_tasks_that_are_too_long_are_left_out_and_counted():
    tasks = make_tasks(1, 300, 2, 301)
    tasks.leave_out_long(letters, 300)
    assert tasks.num_too_long == 2 and originals(tasks, 8) == {"x", "xx"}


def test_tasks_that_fit_are_given_in_the_same_order():
    tasks = make_tasks(1, 2, 3)
    order = [tasks.task(CELL, 0, turn) for turn in range(6)]
    tasks.leave_out_long(letters, 300)
    assert [tasks.task(CELL, 0, turn) for turn in range(6)] == order and tasks.num_too_long == 0


def test_a_kind_of_which_no_task_fits_is_an_error():
    with pytest.raises(ConfigError, match=r"at least that of a task, \d+ tokens of parameters sums 1, got 200"):
        make_tasks(300, 400).leave_out_long(letters, 200)
