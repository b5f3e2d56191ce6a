"""Reads a story and works it out: its answer, the steps that lead there, and their size.

Every sentence must be in the grammar. Names, things and containers may be any words.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from string import Formatter

from pipeline.data.stories.grammar import PATTERNS, QUESTIONS, Sentence, gaps_of
from pipeline.data.stories.ledger import ContradictionError, Ledger, Step
from pipeline.data.stories.words import LEADS, OWN_WORDS, is_plural_of, topic_of

_MAX_CHARS = 1000
_MAX_SENTENCES = 8
_SENTENCE_END = re.compile(r"(?<=[.?]) ")
_NOUN = "([a-z]{2,15})"
_HOLDER = "([A-Z][a-z]{1,14}|[Tt]he [a-z]{2,15})"
_NUMBER = "(0|[1-9][0-9]{0,5})"
_LEAD = f"((?:{'|'.join(LEADS)})?)"
_GAPS = {"A": _HOLDER, "B": _HOLDER, "n": _NUMBER, "m": _NUMBER, "lead": _LEAD}


@dataclass(frozen=True, slots=True)
class Story:
    """A story, worked out."""

    sentences: tuple[Sentence, ...]
    answer: int
    worked_out: tuple[Step, ...]
    """The operations that the answer needs, in the order of the story."""

    @property
    def statement(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def generic(self) -> str:
        """The statement with one name for all holders, and with fixed words for containers, friends and coins that are
        not among ours: made-up words make nothing new."""
        return " ".join(
            replace(each, gaps={gap: _generic_word(gap, word) for gap, word in each.gaps.items()}).text
            for each in self.sentences
        )

    @property
    def steps(self) -> tuple[str, ...]:
        """Lines such as ``5 * 11 = 55``."""
        return tuple(map(str, self.worked_out))

    @property
    def solution(self) -> str:
        return "\n".join(self.steps)

    @property
    def num_operations(self) -> int:
        """The difficulty: operations that are not trivial."""
        return sum(not step.is_trivial for step in self.worked_out)

    @property
    def is_trivial(self) -> bool:
        """True if there is nothing to compute, or if some operation is trivial."""
        return not self.worked_out or any(step.is_trivial for step in self.worked_out)

    @property
    def largest(self) -> int:
        """The largest number in the statement or in a step."""
        stated = [number for sentence in self.sentences for number in sentence.numbers]
        return max([*stated, *(number for step in self.worked_out for number in (step.left, step.right, step.result))])

    @property
    def thing(self) -> str:
        """The kind of thing that everybody in the story holds."""
        return self.sentences[-1].gaps["things"]

    @property
    def topic(self) -> str | None:
        """The topic that the thing belongs to; None if it belongs to none."""
        return topic_of(self.thing)

    @property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for stories that differ only in names, things, containers and wording."""
        holders: dict[str, int] = {}
        return tuple(
            (each.pattern, *(holders.setdefault(holder, len(holders)) for holder in each.holders), *each.numbers)
            for each in self.sentences
        )


def _generic_word(gap: str, word: str) -> str:
    if gap in "AB":
        return "Someone"
    return word if word in OWN_WORDS.get(gap, {word}) else gap


def read_story(statement: str) -> Story | None:
    """The story of a statement.

    None if a sentence is not in the grammar, if the statement does not end in its only question, if people hold
    different things, if a count is unknown, negative or a fraction, or if a sentence does not matter to the answer.
    """
    if len(statement) > _MAX_CHARS:
        return None
    texts = _SENTENCE_END.split(" ".join(statement.split()), _MAX_SENTENCES)
    sentences = [_read_sentence(text) for text in texts]
    known = [sentence for sentence in sentences if sentence]
    if len(known) < len(texts) or len(texts) > _MAX_SENTENCES:
        return None
    return work_out(known)


def work_out(sentences: Sequence[Sentence]) -> Story | None:
    """The story of some sentences; None as in ``read_story``."""
    *told, question = sentences
    if question.pattern not in QUESTIONS or any(each.pattern in QUESTIONS for each in told):
        return None
    if len({sentence.gaps["things"] for sentence in sentences if "things" in sentence.gaps}) != 1:
        return None
    ledger = Ledger()
    try:
        for ledger.sentence, sentence in enumerate(told):
            PATTERNS[sentence.pattern].tell(ledger, sentence)
        ledger.sentence = len(told)
        answer = PATTERNS[question.pattern].tell(ledger, question)
    except ContradictionError:
        return None
    if answer is None or answer.sentences | {len(told)} != set(range(len(sentences))):
        return None
    return Story(tuple(sentences), answer.value, tuple(ledger.steps[index] for index in answer.steps))


# Sentences ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """A wording as a regular expression. Its gaps are bounded and separated by fixed words."""

    pattern: str
    wording: str
    expression: re.Pattern[str]


def _forms() -> Iterator[Form]:
    for name, pattern in PATTERNS.items():
        for wording in (*pattern.everyday, *pattern.practical):
            parts = Formatter().parse(wording)
            expression = "".join(re.escape(text) + (_GAPS.get(gap, _NOUN) if gap else "") for text, gap, _, _ in parts)
            yield Form(name, wording, re.compile(expression))


FORMS = tuple(_forms())
RESERVED = frozenset(
    word.lower()
    for text in (*LEADS, *(re.sub(r"\{\w+\}", " ", form.wording) for form in FORMS))
    for word in re.findall("[A-Za-z]+", text)
)
"""Words of the grammar itself, which cannot be names or things."""


def _read_sentence(text: str) -> Sentence | None:
    for form in FORMS:
        if match := form.expression.fullmatch(text):
            return _sentence(form, match.groups())
    return None


def _sentence(form: Form, values: tuple[str, ...]) -> Sentence | None:
    """The sentence of a match.

    None if a gap is filled in two ways or with a word of the grammar, if A and B are the same, or if a singular and its
    plural do not match.
    """
    gaps: dict[str, str] = {}
    for gap, value in zip(gaps_of(form.wording), values, strict=True):
        value = value.replace("The ", "the ") if gap in "AB" else value
        word = value.removeprefix("the ") if gap in "AB" else value
        if gaps.setdefault(gap, value) != value or (gap != "lead" and word.lower() in RESERVED):
            return None
    if gaps.get("A") == gaps.get("B", "") or not all(
        is_plural_of(gaps[f"{one}s"], gaps[one]) for one in ("container", "friend") if {one, f"{one}s"} <= gaps.keys()
    ):
        return None
    return Sentence(form.pattern, form.wording, gaps)
