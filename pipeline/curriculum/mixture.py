"""Mixes replayed examples into a stage's batches: a pure function of the seed and the position."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.seeds import Indexed, item_at

T = TypeVar("T")


class Order(Protocol):
    """An endless walk over the rows of a stage's own examples."""

    @property
    def first_pass(self) -> int:
        """Positions after which every row has come once at least."""

    def row(self, position: int) -> int: ...


@dataclass(frozen=True)
class Shuffled:
    """Every pass is a new permutation of all rows."""

    num_rows: int
    seed: tuple[object, ...]

    @property
    def first_pass(self) -> int:
        return self.num_rows

    def row(self, position: int) -> int:
        return item_at(range(self.num_rows), position, *self.seed)


@dataclass(frozen=True)
class InTurn:
    """Levels in turn, each with its own permutations: rows of a small level come back sooner."""

    rows_of_level: tuple[Sequence[int], ...]
    seed: tuple[object, ...]

    @property
    def first_pass(self) -> int:
        return len(self.rows_of_level) * max(map(len, self.rows_of_level))

    def row(self, position: int) -> int:
        turn, level = divmod(position, len(self.rows_of_level))
        return item_at(self.rows_of_level[level], turn, *self.seed, level)


@dataclass(frozen=True)
class Mixture(Generic[T]):
    """The examples of a stage, ``num_examples`` in a row: new ones, and replayed ones spread evenly among them."""

    new: Indexed[T]
    order: Order
    replayed: Indexed[T]
    num_examples: int
    num_replayed: int
    seed: tuple[object, ...]

    def at(self, position: int) -> T:
        """The example at a position, from 0.

        Any window of b positions holds b x num_replayed / num_examples replayed examples, rounded down or up. New and
        replayed examples are permuted independently: one more replayed example shifts the new ones and changes
        nothing else.
        """
        row = self.replayed_row(position)
        if row is not None:
            return self.replayed[row]
        return self.new[self.order.row(position - position * self.num_replayed // self.num_examples)]

    def replayed_row(self, position: int) -> int | None:
        """The row of the replayed example at a position; None where there is a new one."""
        before = position * self.num_replayed // self.num_examples
        if (position + 1) * self.num_replayed // self.num_examples > before:
            return item_at(range(len(self.replayed)), before, *self.seed, "replay")
        return None

    def batch(self, batch_size: int, step: int) -> list[T]:
        """The batch of a step, from 0. Steps past ``num_examples`` (a repeated stage) keep the share."""
        return [self.at(position) for position in range(step * batch_size, (step + 1) * batch_size)]

    def new_rows_until(self, num_positions: int) -> list[int]:
        """The new examples among the first positions, as indices into ``new``, each once, in training order."""
        num_new = num_positions - num_positions * self.num_replayed // self.num_examples
        rows = (self.order.row(index) for index in range(min(num_new, self.order.first_pass)))
        return list(dict.fromkeys(rows))


def mix(
    new: Indexed[T],
    replayed: Indexed[T],
    ratio: float,
    num_examples: int,
    *seed: object,
    levels: Sequence[str | None] | None = None,
) -> Mixture[T]:
    """Mix a stage's own examples with those of the replay buffer.

    Exactly ``round(ratio x num_examples)`` of the examples are replayed, the rest is new. A small buffer is used in
    several passes, each in a new order: no example comes a third time before all came twice. An empty buffer replays
    nothing.

    Args:
        num_examples: all that the stage trains on: steps x batch size.
        seed: seeds the order.
        levels: the level of each new example, so that levels take turns. None: any example may follow another.
    """
    num_replayed = round(ratio * num_examples) if len(replayed) else 0
    order: Order = Shuffled(len(new), seed)
    if levels is not None:
        rows: dict[str | None, list[int]] = {}
        for row, level in enumerate(levels):
            rows.setdefault(level, []).append(row)
        order = InTurn(tuple(rows[level] for level in sorted(rows, key=str)), seed)
    return Mixture(new, order, replayed, num_examples, num_replayed, seed)
