"""What happens at which step: pure functions of the configuration, the seed and the step number.

A step never depends on what was drawn before it, so a resumed run repeats nothing and skips nothing.
"""

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pipeline.config import GRPOConfig, OptimizerConfig, ProblemFilter, SFTConfig
from pipeline.types import Problem, ProblemHead

T = TypeVar("T")
P = TypeVar("P", Problem, ProblemHead)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any parts, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def completion_seeds(run_seed: int, step: int, problem_id: str, num_generations: int) -> tuple[int, ...]:
    """One independent sampling seed per completion of a group (31 bits, as engines want them)."""
    return tuple(derive_seed(run_seed, step, problem_id, index) & 0x7FFFFFFF for index in range(num_generations))


def item_at(items: Sequence[T], position: int, *seed: object) -> T:
    """The item at a position (from 0) of an endless walk: a new seeded permutation every pass, none left out."""
    epoch, index = divmod(position, len(items))
    return items[_permutation(len(items), derive_seed(*seed, "epoch", epoch))[index]]


_permutations: dict[tuple[int, int], list[int]] = {}


def _permutation(size: int, seed: int) -> list[int]:
    if (size, seed) not in _permutations:
        if len(_permutations) > 4:
            _permutations.clear()
        _permutations[size, seed] = random.Random(seed).sample(range(size), size)
    return _permutations[size, seed]


def select_problems(problems: Iterable[P], chosen: ProblemFilter) -> list[P]:
    """The problems a stage uses, in data set order."""
    kept, per_level = [], dict[str | None, int]()
    for problem in problems:
        if chosen.levels is not None and problem.level not in chosen.levels:
            continue
        if chosen.types is not None and problem.type not in chosen.types:
            continue
        if chosen.sources is not None and problem.source not in chosen.sources:
            continue
        per_level[problem.level] = per_level.get(problem.level, 0) + 1
        if chosen.max_per_level is None or per_level[problem.level] <= chosen.max_per_level:
            kept.append(problem)
    return kept


def num_steps(settings: SFTConfig | GRPOConfig, batch_size: int, num_examples: int) -> int:
    """Steps of a stage that trains on ``num_examples``, ``batch_size`` at a time over all workers."""
    if isinstance(settings, GRPOConfig):
        return settings.num_iterations * settings.num_steps
    steps = math.ceil(round(settings.num_train_epochs * num_examples / batch_size, 9))
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def eval_steps(times: int, total_steps: int) -> set[int]:
    """After which steps (from 1) to evaluate: ``times`` evenly spread ones, the last step among them."""
    return {math.ceil(total_steps * (index + 1) / times) for index in range(times)}


def learning_rate(settings: OptimizerConfig, step: int, total_steps: int) -> float:
    """Of ``step`` (from 0): linear warm-up from 0, then held, linear to 0, or half a cosine to 0."""
    warmup = round(settings.warmup_ratio * total_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(total_steps - warmup, 1)
    scale = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    return settings.learning_rate * scale[settings.lr_schedule]
