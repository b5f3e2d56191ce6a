"""The grammar of stories: one table of sentence patterns, with which stories are written and read.

A pattern has one meaning and several wordings. In a wording, ``{A}`` and ``{B}`` are holders, ``{n}`` and ``{m}``
are numbers, ``{lead}`` is an optional beginning such as "Later", and the other names stand for nouns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from string import Formatter
from typing import NamedTuple

from pipeline.data.stories.ledger import Amount, Ledger


class Pattern(NamedTuple):
    """A kind of sentence."""

    tell: Callable[[Ledger, "Sentence"], Amount | None]
    """Changes the ledger, or, for a question, returns the answer."""
    ranges: tuple[range, ...]
    """The ranges of ``n`` and ``m`` in stories that we write. A level also bounds its numbers."""
    everyday: tuple[str, ...]
    """Wordings about people."""
    practical: tuple[str, ...]
    """Wordings about places such as a bakery."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a story: a pattern, one of its wordings, and the words in its gaps."""

    pattern: str
    wording: str
    gaps: dict[str, str]

    @property
    def a(self) -> str:
        return self.gaps["A"]

    @property
    def b(self) -> str:
        return self.gaps["B"]

    @property
    def n(self) -> int:
        return int(self.gaps["n"])

    @property
    def m(self) -> int:
        return int(self.gaps["m"])

    @property
    def holders(self) -> list[str]:
        return [self.gaps[gap] for gap in "AB" if gap in self.gaps]

    @property
    def numbers(self) -> list[int]:
        return [int(self.gaps[gap]) for gap in "nm" if gap in self.gaps]

    @property
    def text(self) -> str:
        text = self.wording.format(**self.gaps)
        return text[0].upper() + text[1:]


@cache
def gaps_of(wording: str) -> tuple[str, ...]:
    """The gaps of a wording, in text order; some occur twice."""
    return tuple(gap for _, gap, _, _ in Formatter().parse(wording) if gap)


def _in_containers(ledger: Ledger, sentence: Sentence) -> Amount:
    return ledger.work(ledger.number(sentence.n), "*", ledger.number(sentence.m))


def _compared(sign: str) -> Callable[[Ledger, Sentence], None]:
    """A sentence that states B's amount relative to A's."""
    return lambda book, told: book.open(told.b, book.work(book.held(told.a), sign, book.number(told.n)))


def _changed(sign: str) -> Callable[[Ledger, Sentence], None]:
    return lambda book, told: book.change(told.a, sign, book.number(told.n))


def _asked(sign: str) -> Callable[[Ledger, Sentence], Amount]:
    """A question about A's amount and a number."""
    return lambda book, told: book.work(book.held(told.a), sign, book.number(told.n))


def _asked_of_both(sign: str) -> Callable[[Ledger, Sentence], Amount]:
    return lambda book, told: book.work(book.held(told.a), sign, book.held(told.b))


_ANY, _FEW, _DOZEN = range(2, 1000), range(2, 10), range(2, 13)

PATTERNS = {
    "has": Pattern(
        lambda book, told: book.open(told.a, book.number(told.n)), (_ANY,),
        ("{A} has {n} {things}.", "{A} owns {n} {things}.", "{A} starts with {n} {things}."),
        ("{A} has {n} {things} in stock.", "{A} opens with {n} {things}."),
    ),
    "containers": Pattern(
        lambda book, told: book.open(told.a, _in_containers(book, told)), (_FEW, _DOZEN),
        (
            "{A} has {n} {containers} with {m} {things} in each {container}.",
            "{A} fills {n} {containers} with {m} {things} each.",
            "{A} keeps {m} {things} in each of {n} {containers}.",
        ),
        (
            "{A} receives {n} {containers} with {m} {things} in each {container}.",
            "{A} stores {m} {things} in each of {n} {containers}.",
        ),
    ),
    "more": Pattern(
        _changed("+"), (_ANY,),
        ("{lead}{A} buys {n} more {things}.", "{lead}{A} finds {n} more {things}.", "{lead}{A} gets {n} {things}."),
        ("{lead}{A} orders {n} more {things}.", "A van brings {A} {n} more {things}."),
    ),
    "fewer": Pattern(
        _changed("-"), (_ANY,),
        ("{lead}{A} sells {n} {things}.", "{lead}{A} gives away {n} {things}.", "{lead}{A} loses {n} {things}."),
        ("{lead}{A} uses up {n} {things}.", "{lead}{A} sells {n} {things} to customers."),
    ),
    "gives": Pattern(
        lambda book, told: book.move(told.a, told.b, book.number(told.n)), (_ANY,),
        ("{lead}{A} gives {n} {things} to {B}.", "{lead}{B} gets {n} {things} from {A}."),
        ("{lead}{A} delivers {n} {things} to {B}.", "{lead}{B} collects {n} {things} from {A}."),
    ),
    "half": Pattern(
        lambda book, told: book.change(told.a, "/", book.number(2)), (),
        ("{lead}{A} gives away half of the {things}.", "{lead}{A} sells half of the {things}."),
        ("{lead}{A} uses up half of the {things}.", "{lead}{A} ships half of the {things}."),
    ),
    "times": Pattern(
        _changed("*"), (_FEW,),
        ("{A} now has {n} times as many {things}.", "{lead}{A} has {n} times as many {things} as before."),
        ("{lead}{A} stocks {n} times as many {things} as before.",),
    ),
    "more_containers": Pattern(
        lambda book, told: book.change(told.a, "+", _in_containers(book, told)), (_FEW, _DOZEN),
        ("{lead}{A} buys {n} {containers} of {m} {things}.", "{lead}{A} gets {n} {containers} with {m} {things} each."),
        ("{lead}{A} orders {n} {containers} of {m} {things}.", "A van brings {A} {n} {containers} of {m} {things}."),
    ),
    "fewer_containers": Pattern(
        lambda book, told: book.change(told.a, "-", _in_containers(book, told)), (_FEW, _DOZEN),
        ("{lead}{A} sells {n} {containers} of {m} {things}.", "{lead}{A} gives away {n} {containers} of {m} {things}."),
        ("{lead}{A} ships {n} {containers} of {m} {things}.", "{lead}{A} uses up {n} {containers} of {m} {things}."),
    ),
    "more_than": Pattern(
        _compared("+"), (_ANY,),
        ("{B} has {n} more {things} than {A}.", "{B} owns {n} more {things} than {A}."),
        ("{B} stocks {n} more {things} than {A}.", "{B} stores {n} more {things} than {A}."),
    ),
    "fewer_than": Pattern(
        _compared("-"), (_ANY,),
        ("{B} has {n} fewer {things} than {A}.", "{B} owns {n} fewer {things} than {A}."),
        ("{B} stocks {n} fewer {things} than {A}.", "{B} stores {n} fewer {things} than {A}."),
    ),
    "times_as_many": Pattern(
        _compared("*"), (_FEW,),
        ("{B} has {n} times as many {things} as {A}.", "{B} owns {n} times as many {things} as {A}."),
        ("{B} stocks {n} times as many {things} as {A}.", "{B} stores {n} times as many {things} as {A}."),
    ),
    "half_as_many": Pattern(
        lambda book, told: book.open(told.b, book.work(book.held(told.a), "/", book.number(2))), (),
        ("{B} has half as many {things} as {A}.", "{B} owns half as many {things} as {A}."),
        ("{B} stocks half as many {things} as {A}.", "{B} stores half as many {things} as {A}."),
    ),
    "now": Pattern(
        lambda book, told: book.held(told.a), (),
        (
            "How many {things} does {A} have now?",
            "How many {things} does {A} have in the end?",
            "How many {things} does {A} have?",
        ),
        ("How many {things} does {A} have in stock now?", "What is the number of {things} at {A} now?"),
    ),
    "shared": Pattern(
        _asked("/"), (_FEW,),
        (
            "If {A} shares the {things} equally among {n} {friends}, how many {things} does each {friend} get?",
            "How many {things} does each {friend} get if {A} shares them equally among {n} {friends}?",
        ),
        (
            "If {A} packs the {things} equally into {n} {containers}, how many {things} are in each {container}?",
            "How many {things} are in each {container} if {A} packs them equally into {n} {containers}?",
        ),
    ),
    "packed": Pattern(
        _asked("/"), (_FEW,),
        (
            "If {A} puts {n} {things} in each {container}, how many {containers} does {A} need?",
            "How many {containers} does {A} need to put {n} {things} in each {container}?",
        ),
        (
            "If {A} packs {n} {things} in each {container}, how many {containers} does {A} fill?",
            "How many {containers} can {A} pack with {n} {things} in each {container}?",
        ),
    ),
    "price": Pattern(
        _asked("*"), (_FEW,),
        (
            "If {A} sells all the {things} at {n} {coins} each, how many {coins} does {A} get?",
            "How many {coins} does {A} get for all the {things} at {n} {coins} each?",
        ),
        (
            "How many {coins} does {A} earn if all the {things} are sold at {n} {coins} each?",
            "What is the value of the {things} at {A} in {coins} if each one costs {n} {coins}?",
        ),
    ),
    "together": Pattern(
        _asked_of_both("+"), (),
        (
            "How many {things} do {A} and {B} have together?",
            "How many {things} do {A} and {B} have in total?",
        ),
        (
            "How many {things} do {A} and {B} stock together?",
            "What is the total number of {things} at {A} and {B}?",
        ),
    ),
    "difference": Pattern(
        _asked_of_both("-"), (),
        (
            "How many more {things} does {A} have than {B}?",
            "How many more {things} does {A} own than {B}?",
        ),
        ("How many more {things} does {A} stock than {B}?", "How many more {things} are at {A} than at {B}?"),
    ),
}  # fmt: skip
"""All patterns, statements first, then questions. A story is some statements and one question."""
QUESTIONS = ("now", "shared", "packed", "price", "together", "difference")
