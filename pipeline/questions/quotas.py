"""The problems of each kind, topic and level that are still to be written, as a function of the rows so far."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from math import ceil
from typing import Any, NamedTuple

from pipeline.types import WritingKind


class Cell(NamedTuple):
    """One kind of task on one topic at one level; empty texts if the data has no topics or levels."""

    kind: WritingKind
    topic: str
    level: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Cell":
        return cls(row["kind"], row["topic"] or "", row["level"] or "")


Quotas = Mapping[Cell, int]


def even_quotas(cells: Sequence[Cell], num_problems: int) -> Quotas:
    """The number of problems to keep of each cell. If they do not divide evenly, the first cells get one more."""
    share, rest = divmod(num_problems, len(cells))
    return {cell: share + (index < rest) for index, cell in enumerate(cells)}


def next_tasks(quotas: Quotas, rows: Iterable[Mapping[str, Any]], num_samples: int, max_written: int) -> list[Cell]:
    """The cells of the next tasks, taking turns; empty once every quota is met or nothing more may be written.

    There are as many tasks as it takes to meet the quotas at the share kept so far, which is taken to be half at first.

    Args:
        rows: all written problems, judged.
        num_samples: completions per task.
        max_written: maximum number of completions in all.
    """
    written, kept = Counter[Cell](), Counter[Cell]()
    for row in rows:
        written[Cell.of(row)] += 1
        kept[Cell.of(row)] += row["is_kept"]
    counts = []
    for cell, quota in quotas.items():
        expected = (kept[cell] + 1) / (written[cell] + 2)
        missing = max(quota - kept[cell], 0)
        counts.append([cell] * ceil(min(missing / expected, max_written) / num_samples))
    in_turn = [cell for turn in zip_longest(*counts) for cell in turn if cell is not None]
    return in_turn[: max(max_written - written.total(), 0) // num_samples]
