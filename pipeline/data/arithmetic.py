"""The embedded data set of chained sums: five levels, generated on demand by reasoning-gym's ``chain_sum``.

Training and held-out problems never overlap: both come from one stream per level, in which sums that differ only in
the order of their terms count once.
"""

from collections.abc import Iterator
from itertools import count
from math import comb
from typing import Any

from pipeline.config import EmbeddedSetsConfig
from pipeline.data.embedded import level_part
from pipeline.types import SplitName

NAME = "embedded:arithmetic"

_LEVELS = {"1": (3, 1), "2": (4, 1), "3": (5, 1), "4": (6, 1), "5": (3, 2)}
"""Level -> (number of terms, digits of each), in order of difficulty for the embedded model."""
_SEED = 20_261_121


def arithmetic_rows(config: EmbeddedSetsConfig, split: SplitName) -> list[dict[str, Any]]:
    """Rows of question, answer, solution (or None) and level, easiest level first.

    ``level_part`` says how many. Only level 1 is small: 1,165 distinct problems.
    """
    rows = []
    for (level, sizes), worked in zip(_LEVELS.items(), config.worked_per_level, strict=True):
        part = level_part(_sums(level), lambda item: sum_key(item[0]), num_distinct(*sizes), config, split)
        for index, (expression, answer) in enumerate(part):
            is_worked = split == "train" and index < worked
            solution = sum_worked_out(expression, answer, index, config.terse_frac) if is_worked else None
            question = f"What is {expression}?"
            rows.append({"question": question, "answer": answer, "solution": solution, "level": level})
    return rows


def num_distinct(num_terms: int, num_digits: int) -> int:
    """The number of sums that differ by more than the order of their terms.

    A sum is a multiset of signed numbers. The first number has no sign, so not all are negative.
    """
    negatives = 9 * 10 ** (num_digits - 1)
    signed = 2 * negatives + (num_digits == 1)  # 0 is a one-digit number, and -0 is 0
    return comb(signed + num_terms - 1, num_terms) - comb(negatives + num_terms - 1, num_terms)


def sum_key(expression: str) -> tuple[int, ...]:
    """A key that is equal for sums that differ only in the order of their terms: ``3 + 4`` and ``4 + 3``."""
    return tuple(sorted(int(term) for term in expression.replace("- ", "-").replace("+ ", "").split()))


def sum_worked_out(expression: str, answer: str, index: int, terse_frac: float) -> str:
    """A worked solution: the partial sums, or the result in one line for an evenly spread ``terse_frac`` of indices."""
    is_terse = int((index + 1) * terse_frac) > int(index * terse_frac)
    return f"{expression} = {answer}" if is_terse else partial_sums(expression)


def partial_sums(expression: str) -> str:
    """``12 + 34 - 5`` worked out from the left, one line per term: ``12 + 34 = 46``, ``46 - 5 = 41``."""
    first, *rest = expression.split()
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(sign + term)
        lines.append(f"{total} {sign} {term} = {result}")
        total = result
    return "\n".join(lines)


def _sums(level: str) -> Iterator[tuple[str, str]]:
    from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

    terms, digits = _LEVELS[level]
    sizes = {"min_terms": terms, "max_terms": terms, "min_digits": digits, "max_digits": digits}
    dataset = ChainSumDataset(ChainSumConfig(**sizes, seed=_SEED + int(level) * 10_000_000))
    for index in count():
        item = dataset[index]
        yield item["metadata"]["expression"], item["answer"]
