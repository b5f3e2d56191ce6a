"""Shared by the embedded data sets: their fields, and how a level's stream of problems is divided."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from pipeline.config import EmbeddedSetsConfig, FieldNames
from pipeline.types import SplitName

FIELDS = FieldNames(question="question", answer="answer", solution="solution", level="level", type="type")
"""The sets without topics have no ``type`` in their rows."""
Item = TypeVar("Item")


def level_part(
    stream: Iterable[Item],
    key: Callable[[Item], Hashable],
    num_distinct: int,
    config: EmbeddedSetsConfig,
    split: SplitName,
) -> Iterator[Item]:
    """A level's held-out or training problems, which never overlap.

    The first ``eval_per_level`` problems of the stream are held out, but at most a quarter of all distinct ones. The
    next ``train_per_level`` are for training, or as many as remain. So held-out problems do not depend on
    ``train_per_level``.

    Args:
        stream: may repeat problems and may be endless.
        key: equal for problems that count as the same.
        num_distinct: number of distinct problems in the stream.
    """
    num_eval = min(config.eval_per_level, num_distinct // 4)
    num_train = min(config.train_per_level, num_distinct - num_eval)
    start, stop = (0, num_eval) if split == "eval" else (num_eval, num_eval + num_train)
    return islice(_each_once(stream, key), start, stop)


def _each_once(stream: Iterable[Item], key: Callable[[Item], Hashable]) -> Iterator[Item]:
    seen = set()
    for item in stream:
        if (name := key(item)) not in seen:
            seen.add(name)
            yield item
