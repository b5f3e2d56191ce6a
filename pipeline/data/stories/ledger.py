"""Tracks how many things each holder has as a story proceeds, and the steps that lead there."""

from collections.abc import Iterable
from typing import NamedTuple


class ContradictionError(ValueError):
    """A story that is impossible, such as one in which somebody gives away more than they have."""


class Step(NamedTuple):
    """One operation on two numbers."""

    left: int
    sign: str
    right: int
    result: int
    is_trivial: bool
    """True if it has 0 or 1 as an operand, subtracts or divides a number by itself, or undoes an earlier step."""

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}"


def step_of(left: int, sign: str, right: int, result: int, earlier: Iterable[Step]) -> Step:
    """A step. Its operands and the earlier steps decide whether it is trivial."""
    is_empty = bool({left, right} & {0, 1}) or (left == right and sign in ("-", "/", "modulo"))
    undoes = any(step.left == result and step.result == left for step in earlier)
    return Step(left, sign, right, result, is_empty or undoes)


class Amount(NamedTuple):
    """A number, with the steps and the sentences of the story that it depends on."""

    value: int
    steps: tuple[int, ...] = ()
    """Positions in ``Ledger.steps``, ascending. The last step made the number."""
    sentences: frozenset[int] = frozenset()


class Ledger:
    """The holders' amounts up to the current sentence. Its methods raise ContradictionError."""

    def __init__(self) -> None:
        self.sentence = 0
        """Position of the current sentence."""
        self.steps: list[Step] = []
        self._held: dict[str, Amount] = {}

    def knows(self, holder: str) -> bool:
        return holder in self._held

    def held(self, holder: str) -> Amount:
        if holder not in self._held:
            raise ContradictionError(f"nothing is known of {holder}")
        return self._held[holder]

    def open(self, holder: str, amount: Amount) -> None:
        """Set a holder's first amount."""
        if holder in self._held:
            raise ContradictionError(f"{holder} is known already")
        self._held[holder] = amount

    def number(self, value: int) -> Amount:
        """A number that the current sentence states."""
        return Amount(value, (), frozenset([self.sentence]))

    def work(self, left: Amount, sign: str, right: Amount) -> Amount:
        """Append a step and return its result, which depends on both operands and the current sentence."""
        result = _result(left.value, sign, right.value)
        earlier = [self.steps[index] for index in left.steps]
        self.steps.append(step_of(left.value, sign, right.value, result, earlier))
        steps = sorted({*left.steps, *right.steps, len(self.steps) - 1})
        return Amount(result, tuple(steps), left.sentences | right.sentences | {self.sentence})

    def change(self, holder: str, sign: str, by: Amount) -> None:
        self._held[holder] = self.work(self.held(holder), sign, by)

    def move(self, giver: str, taker: str, amount: Amount) -> None:
        """Move things between two holders. One of them may be unknown, and stays unknown."""
        if not (self.knows(giver) or self.knows(taker)):
            raise ContradictionError(f"nothing is known of {giver} and {taker}")
        for holder, sign in ((giver, "-"), (taker, "+")):
            if self.knows(holder):
                self.change(holder, sign, amount)


def _result(left: int, sign: str, right: int) -> int:
    match sign:
        case "+":
            return left + right
        case "*":
            return left * right
        case "-" if left >= right:
            return left - right
        case "/" if right and left % right == 0:
            return left // right
    raise ContradictionError(f"{left} {sign} {right} is no number of things")
