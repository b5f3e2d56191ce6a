"""The replay buffer: problems of earlier stages that later ones train on again.

It keeps no random generator. Its contents depend on its seed and on the set of problems offered to it, not on the
order in which they were offered, or how often. So they are the same after any resume, and in every chain that shares
the stage.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pipeline.data.selection import natural_order
from pipeline.data.table import heads, take
from pipeline.errors import CheckpointError
from pipeline.runs.checkpoints import corrupt_checkpoint
from pipeline.seeds import derive_seed
from pipeline.types import Problem

P = TypeVar("P", bound=Sequence[Problem])


class ReplayItem(NamedTuple):
    """A problem by id. Its texts stay in the data set."""

    problem_id: str
    level: str | None
    best_rate: float | None = None
    """Its best solve rate at the end of its own stage, as faded by then. None: that was not measured."""


@dataclass(frozen=True)
class ReplayBuffer:
    """At most ``capacity`` problems of earlier stages.

    Every problem gets a priority, a hash of the seed and its id, and the lowest are kept. That is reservoir sampling
    by random keys: every problem has the same chance, whenever it was offered. A problem offered twice counts once.

    ``by_level`` deals places to the levels in turn until none is left or a level runs out, so that levels differ
    by at most one place unless one has too few problems. Within a level the lowest priorities are kept.

    Source: Vitter, "Random Sampling with a Reservoir", 1985; random keys: Efraimidis and Spirakis, 2006.
    """

    capacity: int
    sampling: Literal["reservoir", "by_level"] = "reservoir"
    seed: int = 0
    items: tuple[ReplayItem, ...] = ()
    """In the order of preference: a smaller buffer would hold the first of them."""

    def add(self, items: Iterable[ReplayItem]) -> "ReplayBuffer":
        """The buffer that results when these problems are offered as well."""
        every = sorted((*self.items, *items), key=lambda item: -1.0 if item.best_rate is None else item.best_rate)
        ranked = sorted({item.problem_id: item for item in every}.values(), key=self._priority)
        if self.sampling == "by_level":
            ranked = _in_turns(ranked)
        return ReplayBuffer(self.capacity, self.sampling, self.seed, tuple(ranked[: self.capacity]))

    def pick(self, problems: P) -> P:
        """The buffer's problems, in its order.

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
        """The inverse of ``to_state``. Raises CheckpointError if the state is malformed."""
        try:
            items = tuple(ReplayItem(*item) for item in state["items"])
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


def read_trained(checkpoint: Path) -> list[ReplayItem]:
    """The problems of a checkpoint's own stage, without replayed ones, that had been trained on."""
    try:
        return [ReplayItem(*item) for item in json.loads((checkpoint / "replay.json").read_text())["trained"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise corrupt_checkpoint(checkpoint, f"replay.json: {error}") from None
