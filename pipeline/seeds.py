"""Seeds and seeded orders: pure functions of the run's seed and the step number.

A step never depends on what was drawn before it, so a resumed run repeats nothing and skips nothing.
"""

import hashlib
import random
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Indexed(Protocol[T_co]):
    """A sequence, as far as an order needs it: a length and items by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> T_co: ...


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any parts, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def completion_seeds(run_seed: int, step: int, problem_id: str, num_generations: int) -> tuple[int, ...]:
    """One independent sampling seed per completion of a group (31 bits, the range engines accept)."""
    return tuple(derive_seed(run_seed, step, problem_id, index) & 0x7FFFFFFF for index in range(num_generations))


def item_at(items: Indexed[T], position: int, *seed: object) -> T:
    """The item at ``position`` (from 0) of an endless walk over the items. Every pass is a new seeded permutation."""
    epoch, index = divmod(position, len(items))
    return items[_permutation(len(items), derive_seed(*seed, "epoch", epoch))[index]]


_permutations: dict[tuple[int, int], list[int]] = {}
"""Those in use: of new and of replayed examples, maybe of each level, across the end of a pass."""
_MANY, _MAX_ITEMS = 64, 200_000
"""Permutations that are kept: four of any size, and up to this many with this many items together."""


def _permutation(size: int, seed: int) -> list[int]:
    if (size, seed) not in _permutations:
        num_kept = len(_permutations)
        if num_kept >= _MANY or (num_kept > 4 and sum(map(len, _permutations.values())) > _MAX_ITEMS):
            _permutations.clear()
        _permutations[size, seed] = random.Random(seed).sample(range(size), size)
    return _permutations[size, seed]
