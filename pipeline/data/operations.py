"""The embedded data set of five operations, on operands from reasoning-gym's ``basic_arithmetic``.

The questions look alike but are worked out differently, so that learning one level can undo another: the set is made
for studying forgetting. Training and held-out problems never overlap: problems that differ only in the order of their
numbers count as one.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from math import comb
from typing import Any, NamedTuple

from pipeline.config import EmbeddedSetsConfig
from pipeline.data.arithmetic import partial_sums
from pipeline.data.embedded import level_part
from pipeline.types import SplitName

NAME = "embedded:operations"
_SEED = 20_261_122
_TWO_DIGITS = range(10, 100)


def largest_worked_out(*numbers: int) -> str:
    """Compares the largest number so far with each next one, a line each."""
    largest, lines = numbers[0], []
    for number in numbers[1:]:
        lines.append(f"max({largest}, {number}) = {max(largest, number)}")
        largest = max(largest, number)
    return "\n".join(lines)


def sum_worked_out(first: int, second: int) -> str:
    """``37 + 25``: first the tens, ``37 + 20 = 57``, then the ones, ``57 + 5 = 62``."""
    return partial_sums(" + ".join(str(term) for term in (first, *tens_and_ones(second))))


def difference_worked_out(first: int, second: int) -> str:
    """``52 - 37``: first the tens, ``52 - 30 = 22``, then the ones, ``22 - 7 = 15``."""
    return partial_sums(" - ".join(str(term) for term in (first, *tens_and_ones(second))))


def product_worked_out(first: int, second: int) -> str:
    """``37 * 4``: the tens, ``30 * 4 = 120``, the ones, ``7 * 4 = 28``, and their sum, ``120 + 28 = 148``."""
    parts = tens_and_ones(first)
    lines = [f"{part} * {second} = {part * second}" for part in parts]
    if len(parts) > 1:
        lines.append(partial_sums(" + ".join(str(part * second) for part in parts)))
    return "\n".join(lines)


def remainder_worked_out(first: int, second: int) -> str:
    """``37 modulo 5``: the multiple below, ``5 * 7 = 35``, and the rest, ``37 - 35 = 2``."""
    quotient, remainder = divmod(first, second)
    return f"{second} * {quotient} = {second * quotient}\n{first} - {second * quotient} = {remainder}"


def tens_and_ones(number: int) -> list[int]:
    """37 is 30 and 7; 40 is 40 alone."""
    return [part for part in (number // 10 * 10, number % 10) if part]


class Operation(NamedTuple):
    """A level: how its problems are asked, answered, worked out and drawn."""

    question: str
    """A format string with a ``{}`` for each number."""
    answer: Callable[..., int]
    worked_out: Callable[..., str]
    """The last line ends in the answer."""
    ranges: tuple[range, ...]
    """The range of each number. All numbers of a problem differ."""
    num_distinct: int
    """Distinct problems, whatever the order of their numbers."""
    any_order: bool = False
    """False: the largest number comes first."""


LEVELS = {
    "1": Operation(
        "What is the largest of {}, {} and {}?", max, largest_worked_out, (_TWO_DIGITS,) * 3, comb(90, 3), True
    ),
    "2": Operation("What is {} + {}?", operator.add, sum_worked_out, (_TWO_DIGITS,) * 2, comb(90, 2), True),
    "3": Operation("What is {} - {}?", operator.sub, difference_worked_out, (_TWO_DIGITS,) * 2, comb(90, 2)),
    "4": Operation("What is {} * {}?", operator.mul, product_worked_out, (_TWO_DIGITS, range(2, 10)), 90 * 8),
    "5": Operation("What is {} modulo {}?", operator.mod, remainder_worked_out, (_TWO_DIGITS, range(5, 10)), 90 * 5),
}
"""In the order taught at school. Divisors start at 5: remainders of smaller ones are easy to guess."""


def problem_key(numbers: Sequence[int]) -> tuple[int, ...]:
    """A key that is equal for problems of a level that differ only in the order of their numbers."""
    return tuple(sorted(numbers))


def operations_rows(config: EmbeddedSetsConfig, split: SplitName) -> list[dict[str, Any]]:
    """Rows of question, answer, solution and level, easiest level first.

    Every problem is worked out. ``level_part`` says how many there are; levels 4 and 5 are small.
    """
    rows = []
    for level, operation in LEVELS.items():
        for numbers in level_part(_operands(level, operation), problem_key, operation.num_distinct, config, split):
            question, answer = operation.question.format(*numbers), str(operation.answer(*numbers))
            solution = operation.worked_out(*numbers)
            rows.append({"question": question, "answer": answer, "solution": solution, "level": level})
    return rows


def _operands(level: str, operation: Operation) -> Iterator[list[int]]:
    from reasoning_gym.arithmetic.basic_arithmetic import BasicArithmeticDataset, BasicArithmeticDatasetConfig

    terms = len(operation.ranges)
    sizes = {"min_terms": terms, "max_terms": terms, "min_digits": 2, "max_digits": 2}
    plain = {"operators": ["+"], "allow_parentheses": False, "allow_negation": False}
    seed = _SEED + int(level) * 10_000_000
    dataset = BasicArithmeticDataset(BasicArithmeticDatasetConfig(**sizes, **plain, seed=seed))
    for index in count():
        numbers = [int(number) for number in dataset[index]["metadata"]["expression"].split(" + ")]
        if not operation.any_order:
            numbers.sort(reverse=True)
        in_range = all(number in allowed for number, allowed in zip(numbers, operation.ranges, strict=True))
        if in_range and len(set(numbers)) == terms:
            yield numbers
