"""The tasks of a generation, by kind, topic and level, with the prompts of the run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product

from pipeline.config import WritingConfig
from pipeline.config.generation import GenerationConfig
from pipeline.data.selection import natural_order
from pipeline.data.writing import new_task
from pipeline.errors import ConfigError, DataError
from pipeline.questions.quotas import Cell
from pipeline.seeds import item_at
from pipeline.types import Problem


class Tasks:
    """Gives the tasks of each cell.

    Args:
        training: tasks of the run's training data. Its variation tasks are used again, with new seeds.

    Raises:
        DataError: a variation has no original of its topic and level.
    """

    def __init__(self, config: GenerationConfig, writing: WritingConfig, training: Sequence[Problem]) -> None:
        self._writing, self._seed = writing, config.seed
        self.num_too_long = 0
        """Tasks that ``leave_out_long`` left out."""
        self._originals: dict[Cell, list[Problem]] = {}
        for task in training:
            if task.writing and task.writing.kind in config.kinds and task.writing.original is not None:
                cell = Cell(task.writing.kind, task.type or "", task.level or "")
                self._originals.setdefault(cell, []).append(task)
        topics = config.topics or _sorted(task.type for task in training)
        levels = config.levels or _sorted(task.level for task in training)
        self.cells = [Cell(*parts) for parts in product(config.kinds, topics, levels)]
        for cell in self.cells:
            self._check(cell, training)

    def _check(self, cell: Cell, training: Sequence[Problem]) -> None:
        if cell.kind != "new" and cell not in self._originals:
            topics, levels = (_named(getattr(task, tag) for task in training) for tag in ("type", "level"))
            raise DataError(
                f"kinds must have training problems to vary, got none of topic {cell.topic or 'any'} and level "
                f"{cell.level or 'any'} for {cell.kind}. The data has topics {topics} and levels {levels}."
            )

    def leave_out_long(self, num_tokens: Callable[[Sequence[Problem]], Sequence[int]], limit: int) -> None:
        """Leave out the tasks whose prompts have more tokens than ``limit``.

        Args:
            num_tokens: of the prompt of each task.

        Raises:
            ConfigError: a cell has no other tasks.
        """
        for cell in self.cells:
            tasks = self._originals.get(cell) or [self.task(cell, 0, 0)]
            lengths = num_tokens(tasks)
            if min(lengths) > limit:
                raise ConfigError(
                    f"rollout.max_prompt_length must be at least that of a task, {min(lengths)} tokens of "
                    f"{' '.join(cell)}, got {limit}. Raise it."
                )
            fitting = [task for task, length in zip(tasks, lengths, strict=True) if length <= limit]
            self.num_too_long += len(tasks) - len(fitting)
            if cell in self._originals:
                self._originals[cell] = fitting

    def task(self, cell: Cell, index: int, turn: int) -> Problem:
        """The next task of a cell.

        Args:
            index: position among all tasks, which names it.
            turn: number of earlier tasks of the cell.
        """
        name = f"written-{self._seed}-{index:06d}"
        if cell.kind == "new":
            return new_task(cell.topic, cell.level, self._writing, name)
        return replace(item_at(self._originals[cell], turn, self._seed, *cell), id=name)


def _named(values: Iterable[str | None]) -> str:
    return ", ".join(filter(None, _sorted(values))) or "none"


def _sorted(values: Iterable[str | None]) -> list[str]:
    """The distinct values in natural order, with an empty text for None."""
    return sorted({value or "" for value in values}, key=natural_order)
