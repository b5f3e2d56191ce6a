"""The embedded data set: five levels of chained sums from reasoning-gym's ``chain_sum``, made on the spot.

Training and held-out problems never overlap: both come from one stream per level, in which a sum
counts once whatever the order of its terms.
"""

from collections.abc import Iterator
from itertools import count, islice
from math import comb
from typing import Any, Literal

from pipeline.config import ArithmeticConfig, FieldNames

NAME = "embedded:arithmetic"
FIELDS = FieldNames(question="question", answer="answer", solution="solution", level="level")

_LEVELS = {"1": (3, 1), "2": (4, 1), "3": (5, 1), "4": (6, 1), "5": (3, 2)}
"""Level -> (number of terms, digits of each), in the order in which the embedded model finds them harder."""
_SEED = 20_261_121


def arithmetic_rows(config: ArithmeticConfig, split: Literal["train", "eval"]) -> list[dict[str, Any]]:
    """Rows of question, answer, solution (or None) and level, easiest level first.

    A level's held-out problems are the first ``eval_per_level`` of its stream, whatever
    ``train_per_level`` is, but never more than a quarter of the distinct problems there are.
    Training gets the next ones, as many as there are. Only level 1 is small: 1,165 distinct problems.
    """
    rows = []
    for level, worked in zip(_LEVELS, config.worked_per_level, strict=True):
        num_eval, num_train = split_sizes(level, config)
        start, stop = (0, num_eval) if split == "eval" else (num_eval, num_eval + num_train)
        for index, (expression, answer) in enumerate(islice(_distinct_sums(level), start, stop)):
            is_worked = split == "train" and index < worked
            solution = sum_worked_out(expression, answer, index, config.terse_frac) if is_worked else None
            question = f"What is {expression}?"
            rows.append({"question": question, "answer": answer, "solution": solution, "level": level})
    return rows


def split_sizes(level: str, config: ArithmeticConfig) -> tuple[int, int]:
    """How many problems of a level are held out, and how many are for training."""
    distinct = num_distinct(*_LEVELS[level])
    num_eval = min(config.eval_per_level, distinct // 4)
    return num_eval, min(config.train_per_level, distinct - num_eval)


def num_distinct(num_terms: int, num_digits: int) -> int:
    """How many sums differ by more than the order of their terms.

    A sum is a multiset of signed numbers. The first number has no sign, so not all are negative.
    """
    negatives = 9 * 10 ** (num_digits - 1)
    signed = 2 * negatives + (num_digits == 1)  # 0 is a one-digit number, and -0 is 0
    return comb(signed + num_terms - 1, num_terms) - comb(negatives + num_terms - 1, num_terms)


def sum_key(expression: str) -> tuple[int, ...]:
    """Equal for sums that differ only in the order of their terms: ``3 + 4`` and ``4 + 3``."""
    return tuple(sorted(int(term) for term in expression.replace("- ", "-").replace("+ ", "").split()))


def sum_worked_out(expression: str, answer: str, index: int, terse_frac: float) -> str:
    """By ``index``, the partial sums or, as evenly spread as can be, the result in one line."""
    is_terse = int((index + 1) * terse_frac) > int(index * terse_frac)
    return f"{expression} = {answer}" if is_terse else partial_sums(expression)


def partial_sums(expression: str) -> str:
    """``12 + 34 - 5`` worked out from the left: ``12 + 34 = 46``, ``46 - 5 = 41``, a line each."""
    first, *rest = expression.split()
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(sign + term)
        lines.append(f"{total} {sign} {term} = {result}")
        total = result
    return "\n".join(lines)


def _distinct_sums(level: str) -> Iterator[tuple[str, str]]:
    from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

    terms, digits = _LEVELS[level]
    sizes = {"min_terms": terms, "max_terms": terms, "min_digits": digits, "max_digits": digits}
    dataset = ChainSumDataset(ChainSumConfig(**sizes, seed=_SEED + int(level) * 10_000_000))
    seen = set()
    for index in count():
        item = dataset[index]
        expression = item["metadata"]["expression"]
        key = sum_key(expression)
        if key not in seen:
            seen.add(key)
            yield expression, item["answer"]
