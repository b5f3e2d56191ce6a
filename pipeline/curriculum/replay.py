"""The replay buffer, and how replayed problems are mixed into a stage's batches.

Neither keeps a random generator. What the buffer holds is a function of its seed and of the set of problems
offered to it, in whatever order and however often; what a stage trains on at a position is a function of the
seed and the position. So both are the same after any resume, and in every chain that shares the stage.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pipeline.data.selection import natural_order
from pipeline.data.table import heads, take
from pipeline.errors import CheckpointError
from pipeline.runs.checkpoints import corrupt_checkpoint
from pipeline.seeds import derive_seed, item_at
from pipeline.types import Problem

T = TypeVar("T")
P = TypeVar("P", bound=Sequence[Problem])


class ReplayItem(NamedTuple):
    """A problem by name. Its texts stay in the data set."""

    problem_id: str
    level: str | None


@dataclass(frozen=True)
class ReplayBuffer:
    """At most ``capacity`` problems of earlier stages.

    Every problem gets a priority, a hash of the seed and its id, and the lowest are kept. That is reservoir
    sampling by random keys: each problem has the same chance, whenever it came. A problem offered twice counts once.

    ``by_level`` deals places to the levels in turn until none is left or a level runs out, so that levels differ
    by at most one place unless one has too few problems. Within a level the lowest priorities are kept.

    Source: Vitter, "Random Sampling with a Reservoir", 1985; random keys: Efraimidis and Spirakis, 2006.
    """

    capacity: int
    sampling: Literal["reservoir", "by_level"] = "reservoir"
    seed: int = 0
    items: tuple[ReplayItem, ...] = ()
    """Those kept, in the order in which they would be kept by a smaller buffer."""

    def add(self, items: Iterable[ReplayItem]) -> "ReplayBuffer":
        """A buffer that these were offered to as well."""
        offered = {item.problem_id: item for item in (*self.items, *items)}
        ranked = sorted(offered.values(), key=self._priority)
        if self.sampling == "by_level":
            ranked = _in_turns(ranked)
        return ReplayBuffer(self.capacity, self.sampling, self.seed, tuple(ranked[: self.capacity]))

    def pick(self, problems: P) -> P:
        """The problems that the buffer names, in its order.

        Raises:
            CheckpointError: one of them is not among ``problems``.
        """
        named = {item.problem_id for item in self.items}
        by_id = {head.id: head.row for head in heads(problems) if head.id in named}
        missing = [item.problem_id for item in self.items if item.problem_id not in by_id]
        if missing:
            raise CheckpointError(
                f"the replay buffer must name problems of the training data, got {len(missing)} that it lacks, such "
                f"as {missing[0]}: the data changed. Start a new run."
            )
        return take(problems, [by_id[item.problem_id] for item in self.items])

    def to_state(self) -> dict[str, Any]:
        """Plain JSON, for checkpoints."""
        items = [list(item) for item in self.items]
        return {"capacity": self.capacity, "sampling": self.sampling, "seed": self.seed, "items": items}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ReplayBuffer":
        """Raises CheckpointError when the state is not one of ``to_state``."""
        try:
            items = tuple(ReplayItem(problem_id, level) for problem_id, level in state["items"])
            return cls(state["capacity"], state["sampling"], state["seed"], items)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the replay buffer of a checkpoint cannot be read: {error!r}.") from None

    def _priority(self, item: ReplayItem) -> tuple[int, str]:
        return derive_seed(self.seed, "replay", item.problem_id), item.problem_id


def _in_turns(ranked: Sequence[ReplayItem]) -> list[ReplayItem]:
    """The first of every level, then the second of every level, and so on."""
    taken: dict[str | None, int] = defaultdict(int)
    keyed = []
    for item in ranked:
        keyed.append((taken[item.level], natural_order(item.level or ""), item))
        taken[item.level] += 1
    return [item for *_, item in sorted(keyed, key=lambda entry: entry[:2])]


@dataclass(frozen=True)
class Mixture(Generic[T]):
    """The examples of a stage, ``num_examples`` in a row: new ones, and replayed ones spread evenly among them."""

    new: Sequence[T]
    replayed: Sequence[T]
    num_examples: int
    num_replayed: int
    seed: tuple[object, ...]

    def at(self, position: int) -> tuple[T, bool]:
        """The example at a position from 0, and whether it is a replayed one.

        Any window of b positions holds b x num_replayed / num_examples replayed ones, rounded down or up. New and
        replayed examples each go through permutations of their own, so one more replayed example moves the new ones
        on, and changes nothing else.
        """
        before = position * self.num_replayed // self.num_examples
        if (position + 1) * self.num_replayed // self.num_examples > before:
            return item_at(self.replayed, before, *self.seed, "replay"), True
        return item_at(self.new, position - before, *self.seed), False

    def batch(self, batch_size: int, step: int) -> list[tuple[T, bool]]:
        """The batch of a step from 0. Steps past ``num_examples`` (a repeated stage) keep the share."""
        return [self.at(position) for position in range(step * batch_size, (step + 1) * batch_size)]

    def new_rows_until(self, num_positions: int) -> list[int]:
        """Where in ``new`` the new examples among the first positions are, each once, in order."""
        num_new = num_positions - num_positions * self.num_replayed // self.num_examples
        rows = range(len(self.new))
        return [item_at(rows, index, *self.seed) for index in range(min(num_new, len(rows)))]


def mix(new: Sequence[T], buffered: Sequence[T], ratio: float, num_examples: int, *seed: object) -> Mixture[T]:
    """Mix a stage's own examples with those of the replay buffer.

    ``round(ratio x num_examples)`` of the examples are replayed, exactly, and the rest is new. A buffer that holds
    fewer is gone through again, in a new order: no example comes a third time before all came twice. An empty
    buffer replays nothing.

    Args:
        num_examples: all that the stage trains on: steps x batch size.
        seed: of the order.
    """
    num_replayed = round(ratio * num_examples) if buffered else 0
    return Mixture(new, buffered, num_examples, num_replayed, seed)


def read_trained(checkpoint: Path) -> list[ReplayItem]:
    """Problems that the checkpoint's stage trained on, as new ones."""
    try:
        return [ReplayItem(*item) for item in json.loads((checkpoint / "replay.json").read_text())["trained"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise corrupt_checkpoint(checkpoint, f"replay.json: {error}") from None
