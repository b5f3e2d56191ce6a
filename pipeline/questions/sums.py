"""Questions such as ``What is 3 + 4 - 2?``, as in ``embedded:arithmetic`` and ``embedded:operations``."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.data import operations
from pipeline.data.stories.ledger import Step, step_of
from pipeline.questions.expressions import read_bounded
from pipeline.verifier.reading.tree import Node, items_of

_QUESTION = re.compile(r"(?:What is|What is the value of|Calculate|Compute|Evaluate|Work out) ([^?=a-zA-Z][^?=]*)[?.]")
_LARGEST = re.compile(r"What is the largest of ([0-9, and]+)\?")
_IN_TENS_AND_ONES: dict[str, Callable[[int, int], str]] = {
    "+": operations.sum_worked_out,
    "-": operations.difference_worked_out,
    "*": operations.product_worked_out,
    "modulo": operations.remainder_worked_out,
}


class _NotASumError(ValueError):
    """A tree that is not made of whole numbers and operations with whole results alone."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum, worked out."""

    answer: int
    steps: tuple[str, ...]
    num_operations: int
    largest: int
    is_trivial: bool
    solutions: frozenset[str]
    """Every worked solution that the embedded sets may give: in steps, in one line, in tens and ones."""


def read_sum(statement: str) -> Sum | None:
    """The sum in a question, worked out; None if the statement asks for no sum."""
    if match := _LARGEST.fullmatch(statement):
        return _largest(match[1])
    match = _QUESTION.fullmatch(statement)
    tree = read_bounded(match[1]) if match else None
    if match is None or tree is None:
        return None
    steps: list[Step] = []
    try:
        answer = _work(tree, steps)
    except _NotASumError:
        return None
    worked_out = tuple(map(str, steps))
    sizes = [abs(number) for step in steps for number in (step.left, step.right, step.result)]
    return Sum(
        answer,
        worked_out,
        num_operations=sum(not step.is_trivial for step in steps),
        largest=max([abs(answer), *sizes]),
        is_trivial=not steps or any(step.is_trivial for step in steps),
        solutions=frozenset(["\n".join(worked_out), f"{match[1]} = {answer}", *_in_tens_and_ones(steps)]),
    )


def _largest(listed: str) -> Sum | None:
    tree = read_bounded(listed)
    items = items_of(tree) if tree else ()
    if len(items) < 2 or any(item.head != "number" for item in items):
        return None
    numbers = [int(item.args[0]) for item in items]
    solution = operations.largest_worked_out(*numbers)
    repeats = len(numbers) - len(set(numbers))
    steps = tuple(solution.split("\n"))
    return Sum(max(numbers), steps, len(steps) - repeats, max(numbers), repeats > 0, frozenset([solution]))


def _in_tens_and_ones(steps: list[Step]) -> list[str]:
    if len(steps) != 1 or steps[0].is_trivial or min(steps[0].left, steps[0].right) < 2:
        return []
    (step,) = steps
    return [_IN_TENS_AND_ONES[step.sign](step.left, step.right)] if step.sign in _IN_TENS_AND_ONES else []


def _work(node: Node, steps: list[Step]) -> int:
    """The value of a tree. Its operations are appended to the steps, inner ones first."""
    match node.head, node.args:
        case "number", (value, _) if value.denominator == 1:
            return int(value)
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
        case "call", ("mod", left, right):
            return _step(left, "modulo", right, steps)
    raise _NotASumError(node.head)


def _step(left_tree: Node, sign: str, right_tree: Node, steps: list[Step]) -> int:
    left, right = _work(left_tree, steps), _work(right_tree, steps)
    if sign in ("/", "modulo") and (right <= 0 or (sign == "/" and left % right)):
        raise _NotASumError(f"{left} {sign} {right}")
    results = {"+": left + right, "-": left - right, "*": left * right}
    result = results[sign] if sign in results else left % right if sign == "modulo" else left // right
    steps.append(step_of(left, sign, right, result, steps))
    return result
