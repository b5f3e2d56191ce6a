"""What the embedded data sets share: of each level a stream of problems, of which each counts once."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import Literal, TypeVar

from pipeline.config import EmbeddedSetsConfig, FieldNames

FIELDS = FieldNames(question="question", answer="answer", solution="solution", level="level")
Item = TypeVar("Item")


def level_part(
    stream: Iterable[Item],
    key: Callable[[Item], Hashable],
    num_distinct: int,
    config: EmbeddedSetsConfig,
    split: Literal["train", "eval"],
) -> Iterator[Item]:
    """A level's held-out or training problems, which never overlap.

    Held out are the first ``eval_per_level`` of the stream, whatever ``train_per_level`` is, but never more
    than a quarter of the distinct problems there are. Training gets the next ones, as many as there are.

    Args:
        key: equal for problems that count as the same one.
        num_distinct: of the stream, which may be endless.
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
