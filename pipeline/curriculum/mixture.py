"""Mixes replayed examples into a stage's batches: a pure function of the seed and the position."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.seeds import Indexed, item_at

T = TypeVar("T")


@dataclass(frozen=True)
class Mixture(Generic[T]):
    """The examples of a stage, ``num_examples`` in a row: new ones, and replayed ones spread evenly among them."""

    new: Indexed[T]
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
        before = position * self.num_replayed // self.num_examples
        if (position + 1) * self.num_replayed // self.num_examples > before:
            return item_at(self.replayed, before, *self.seed, "replay")
        return item_at(self.new, position - before, *self.seed)

    def batch(self, batch_size: int, step: int) -> list[T]:
        """The batch of a step, from 0. Steps past ``num_examples`` (a repeated stage) keep the share."""
        return [self.at(position) for position in range(step * batch_size, (step + 1) * batch_size)]

    def new_rows_until(self, num_positions: int) -> list[int]:
        """Indices into ``new`` of the new examples among the first positions, each once, in training order."""
        num_new = num_positions - num_positions * self.num_replayed // self.num_examples
        rows = range(len(self.new))
        return [item_at(rows, index, *self.seed) for index in range(min(num_new, len(rows)))]


def mix(new: Indexed[T], replayed: Indexed[T], ratio: float, num_examples: int, *seed: object) -> Mixture[T]:
    """Mix a stage's own examples with those of the replay buffer.

    Exactly ``round(ratio x num_examples)`` of the examples are replayed, the rest is new. A small buffer is used in
    several passes, each in a new order: no example comes a third time before all came twice. An empty buffer replays
    nothing.

    Args:
        num_examples: all that the stage trains on: steps x batch size.
        seed: seeds the order.
    """
    num_replayed = round(ratio * num_examples) if len(replayed) else 0
    return Mixture(new, replayed, num_examples, num_replayed, seed)
