"""A problem to be asked, and the choice among the problems of a data set."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.evaluation import ProblemsConfig
from pipeline.errors import DataError
from pipeline.seeds import derive_seed
from pipeline.types import Message

_FILTERS = {"level": "levels", "type": "types", "source": "sources"}
"""Tag -> its setting in ProblemsConfig."""


@dataclass(frozen=True)
class EvalProblem:
    """A problem to be asked."""

    id: str
    question: str
    gold: str
    level: str | None = None
    type: str | None = None
    source: str | None = None
    difficulty: str | None = None
    solution: str = ""
    """As in the data: shown when the problem is a solved example in a plain prompt."""
    reasoning: str = ""
    """The solution without its answer, for a solved example in a chat. Empty if the data has only the answer."""
    messages: tuple[Message, ...] = ()
    """The chat messages that the data has as the question; empty if it is a text."""

    @property
    def asked(self) -> str | tuple[Message, ...]:
        return self.messages or self.question


def choose_problems(
    problems: Sequence[EvalProblem], chosen: ProblemsConfig, row_ids: Sequence[str], name: str, seed: int
) -> list[EvalProblem]:
    """Problems that pass the filters, at most ``max_problems`` of them, in their order.

    Args:
        row_ids: the problem id of every row of the data set, "" for a row without a problem.
        name, seed: of the data set and the evaluation; together they decide which ``max_problems`` are drawn.

    Raises:
        DataError: ``index_file`` cannot be read, or names a row or problem that does not exist.
    """
    kept = list(problems)
    for tag, setting in _FILTERS.items():
        values = getattr(chosen, setting)
        if values is not None:
            kept = [problem for problem in kept if getattr(problem, tag) in values]
    if chosen.index_file:
        ids = _indexed(chosen.index_file, row_ids)
        kept = [problem for problem in kept if problem.id in ids]
    if chosen.max_problems and len(kept) > chosen.max_problems:
        draw = random.Random(derive_seed(seed, "problems", name))
        kept = [kept[index] for index in sorted(draw.sample(range(len(kept)), chosen.max_problems))]
    return kept


def _indexed(index_file: str, row_ids: Sequence[str]) -> set[str]:
    """The problem ids that an index file names."""
    try:
        index = json.loads(Path(index_file).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"problems.index_file {index_file} cannot be read: {error}.") from None
    if not isinstance(index, list) or not all(type(item) in (int, str) for item in index):
        raise DataError(f"problems.index_file {index_file} must be a JSON list of row numbers or problem ids.")
    known = set(row_ids)
    wrong = [i for i in index if (i not in known if isinstance(i, str) else not 0 <= i < len(row_ids))]
    if wrong:
        raise DataError(
            f"problems.index_file {index_file} must hold only rows of the data set, which has {len(row_ids)}, "
            f"got {wrong[0]!r}."
        )
    return {row_ids[item] if isinstance(item, int) else item for item in index}


def filter_values(problems: Sequence[EvalProblem]) -> str:
    """The levels, types and sources that a filter could name, for an error message."""
    values = {tag: sorted({str(getattr(problem, tag)) for problem in problems} - {"None"}) for tag in _FILTERS}
    return "There are " + "; ".join(f"{tag}s {', '.join(names[:12])}" for tag, names in values.items() if names) + "."
