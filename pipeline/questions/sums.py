"""Questions such as ``What is 3 + 4 - 2?``, as in ``embedded:arithmetic`` and ``embedded:operations``."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from pipeline.data import operations
from pipeline.questions.expressions import (
    ZERO_AND_ONE,
    UnworkableError,
    bounded,
    canonical,
    decimal,
    numbers_of,
    power,
    read_bounded,
)
from pipeline.verifier.reading.tree import Node, items_of

_QUESTION = re.compile(
    r"(?:What is|What's|How much is|Calculate|Compute|Evaluate|Work out|Find|Determine|Simplify)"
    r"(?: the (?:exact )?value of)?:? ([^?=a-zA-Z][^?=]*?)(?: ?= ?)?[?.]?",
    re.IGNORECASE,
)
_LARGEST = re.compile(r"What is the largest of ([-0-9., and]+)\?", re.IGNORECASE)
_ARITHMETIC = re.compile(
    r"(?:[-+*/^%!().,\[\]{}$\s0-9]|\\[()\[\],;:! ]"
    r"|\\?(?:mod|modulo|bmod|pmod|times|cdot|div|[dt]?frac|left|right)(?![a-zA-Z]))+"
)
"""An expression of numbers, whether it can be worked out or not. Functions and names are of no kind."""
_WORDS = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/"}
_WORD = re.compile(rf"(?<!\\)\b(?:{'|'.join(_WORDS)})\b")
_IN_TENS_AND_ONES: dict[str, Callable[[int, int], str]] = {
    "+": operations.sum_worked_out,
    "-": operations.difference_worked_out,
    "*": operations.product_worked_out,
    "modulo": operations.remainder_worked_out,
}


class _Step(NamedTuple):
    """One operation on two numbers."""

    left: Fraction
    sign: str
    right: Fraction
    result: Fraction
    is_trivial: bool
    """As for a step of a story."""

    def spelled(self, spell: Callable[[Fraction], str]) -> str:
        return f"{spell(self.left)} {self.sign} {spell(self.right)} = {spell(self.result)}"


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum, worked out."""

    answer: Fraction
    steps: tuple[str, ...]
    num_operations: int
    largest: int
    is_trivial: bool
    solutions: frozenset[str]
    """Every worked solution that the embedded sets may have: in steps, in one line, in tens and ones."""
    key: tuple[str, ...]
    """As of ``task_key``."""


def asks_for_sum(statement: str) -> bool:
    """True for a question about numbers alone, whether it can be worked out or not."""
    if _LARGEST.fullmatch(statement):
        return True
    expression = _expression(statement)
    return any(map(str.isdigit, expression)) and bool(_ARITHMETIC.fullmatch(expression))


def read_sum(statement: str) -> Sum | None:
    """The sum of a statement, worked out; None if it asks for none, or if it cannot be worked out."""
    if match := _LARGEST.fullmatch(statement):
        return _largest(match[1])
    expression = _expression(statement)
    tree = read_bounded(expression)
    if tree is None:
        return None
    steps: list[_Step] = []
    try:
        answer = _work(tree, steps)
    except UnworkableError:
        return None
    spell = decimal if "." in expression else str
    sizes = [abs(number) for step in steps for number in (step.left, step.right, step.result)]
    return Sum(
        answer,
        tuple(step.spelled(spell) for step in steps),
        num_operations=sum(not step.is_trivial for step in steps),
        largest=ceil(max([abs(answer), *numbers_of(tree), *sizes])),
        is_trivial=not steps or any(step.is_trivial for step in steps),
        solutions=frozenset([*_solutions(expression, answer, steps), *_in_tens_and_ones(steps)]),
        key=("sum", canonical(tree)),
    )


def _expression(statement: str) -> str:
    """The expression that is asked for, in signs; empty if there is none."""
    match = _QUESTION.fullmatch(statement)
    return _WORD.sub(lambda word: _WORDS[word[0]], match[1].strip()) if match else ""


def _largest(listed: str) -> Sum | None:
    tree = read_bounded(listed)
    items = items_of(tree) if tree else ()
    if len(items) < 2 or any(item.head != "number" or item.args[0].denominator > 1 for item in items):
        return None
    numbers = [int(item.args[0]) for item in items]
    solution = operations.largest_worked_out(*numbers)
    repeats = len(numbers) - len(set(numbers))
    steps = tuple(solution.split("\n"))
    key = ("largest", *map(str, sorted(numbers)))
    num_operations, largest = len(steps) - repeats, max(numbers)
    return Sum(Fraction(largest), steps, num_operations, largest, repeats > 0, frozenset([solution]), key)


def _solutions(expression: str, answer: Fraction, steps: Sequence[_Step]) -> Iterator[str]:
    """In steps and in one line, each in fractions and in decimals. A quotient that stays a fraction needs no line."""
    is_whole = all(number.denominator == 1 for step in steps for number in (step.left, step.right, step.result))
    spellings: list[Callable[[Fraction], str]] = [str] if is_whole else [str, decimal]
    for spell in spellings:
        yield "\n".join(step.spelled(spell) for step in steps)
        yield f"{expression} = {spell(answer)}"
        if not is_whole:
            yield "\n".join(step.spelled(spell) for step in steps if step.sign != "/" or step.result.denominator == 1)


def _in_tens_and_ones(steps: Sequence[_Step]) -> list[str]:
    if len(steps) != 1 or steps[0].is_trivial or steps[0].sign not in _IN_TENS_AND_ONES:
        return []
    (step,) = steps
    if min(step.left, step.right) < 2 or step.left.denominator > 1 or step.right.denominator > 1:
        return []
    return [_IN_TENS_AND_ONES[step.sign](int(step.left), int(step.right))]


def _work(node: Node, steps: list[_Step]) -> Fraction:
    """The value of a tree. Appends its operations to the steps, inner ones first."""
    match node.head, node.args:
        case "number", (Fraction() as value, _):
            return bounded(value)
        case "neg", (inner,):
            return -_work(inner, steps)
        case "add", (left, Node("neg", (right,))):
            return _step(left, "-", right, steps)
        case "add", (left, right):
            return _step(left, "+", right, steps)
        case "mul", (left, right):
            return _step(left, "*", right, steps)
        case "div", (left, right):
            return _step(left, "/", right, steps)
        case "pow", (left, right):
            return _step(left, "^", right, steps)
        case "call", ("mod", left, right):
            return _step(left, "modulo", right, steps)
    raise UnworkableError(node.head)


def _step(left_tree: Node, sign: str, right_tree: Node, steps: list[_Step]) -> Fraction:
    left, right = _work(left_tree, steps), _work(right_tree, steps)
    result = bounded(_result(left, sign, right))
    is_empty = left in ZERO_AND_ONE or right in ZERO_AND_ONE or (left == right and sign in ("-", "/", "modulo"))
    undoes = any(step.left == result and step.result == left for step in steps)
    steps.append(_Step(left, sign, right, result, is_empty or undoes))
    return result


def _result(left: Fraction, sign: str, right: Fraction) -> Fraction:
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "^":
            return power(left, right)
        case "/" if right:
            return left / right
        case "modulo" if left >= 0 < right and left.denominator == right.denominator == 1:  # -7 mod 3: opinions differ
            return left % right
    raise UnworkableError(f"{left} {sign} {right}")
