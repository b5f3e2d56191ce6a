r"""The second scorer: accepts one answer, marked as the prompt asks, that is the gold text or the same plain number.

It imports nothing from the project. It rejects what it does not understand: that is a reason to look, not proof of
anything. Completions are hostile: their length is bounded, and no regular expression here backtracks.
"""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_COMPLETION_CHARS, MAX_ANSWER_CHARS = 100_000, 200

DISAGREEMENTS = {
    "value": "The first scorer says correct; the last marked answer is a different number from the gold one.",
    "form": "The first scorer says correct; the answer has a form that the strict one cannot read, such as a unit.",
    "format": "The first scorer says correct; the last marked answer is the gold one, or none is marked. The required "
    "marks are missing, doubled or misplaced.",
    "missed": "The strict scorer says correct, the first one does not.",
}

_TAG = re.compile(r"</?(?:reasoning|answer)>")
_FORM = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"]
_MARKS = {
    "hash": re.compile(r"#{4,}+([^\n]*+)"),
    "phrase": re.compile(r"The answer is:([^\n]*+)"),
    "box": re.compile(r"\\boxed\{((?:[^{}]++|\{[^{}]*+\})*+)\}"),
}
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++|/[0-9]++)?")


class Mark(NamedTuple):
    """An answer marked as such in a completion."""

    start: int
    kind: str
    """``tag``, ``hash``, ``phrase`` or ``box``."""
    answer: str


class Reading(NamedTuple):
    answer: str | None
    """The last marked answer; None if no answer is marked."""
    is_well_formed: bool


def strict_correct(completion: str, gold: str, tagged: bool = True) -> bool:
    """True if the completion has the required form and its answer is the gold one, by the narrow rule of ``same``.

    Args:
        tagged: as for ``read``.
    """
    reading = read(completion, tagged)
    return reading.is_well_formed and same(reading.answer, gold)


def disagreement(completion: str, gold: str, is_correct: bool, tagged: bool = True) -> str | None:
    """The kind of disagreement with the first scorer: a name in ``DISAGREEMENTS``, or None if they agree.

    Args:
        is_correct: the first scorer's verdict.
        tagged: as for ``read``.
    """
    answer, is_well_formed = read(completion, tagged)
    is_gold = same(answer, gold)
    if is_correct == (is_gold and is_well_formed):
        return None
    if not is_correct:
        return "missed"
    if is_gold or answer is None:
        return "format"
    return "form" if number_in(answer) is None or number_in(gold) is None else "value"


def read(completion: str, tagged: bool = True) -> Reading:
    """The answer of a completion, and whether the completion is well-formed.

    Args:
        tagged: well-formed means one <reasoning> section followed by one <answer> section. False, for plain-text
            prompts: ``####``, ``The answer is:`` and a box, each at most once and all with the same answer.
    """
    if len(completion) > MAX_COMPLETION_CHARS:
        return Reading(None, False)
    marks = marked_answers(completion)
    tags, plain = ([m.answer for m in marks if (m.kind == "tag") == wanted] for wanted in (True, False))
    if tagged and tags:
        return Reading(tags[-1], [match[0] for match in tags_in(completion)] == _FORM)
    if plain:
        kinds = [mark.kind for mark in marks if mark.kind != "tag"]
        agree = len(kinds) == len(set(kinds)) and all(same(answer, plain[0]) for answer in plain)
        return Reading(plain[-1], agree and not tagged)
    return Reading(tags[-1] if tags else None, False)


def marked_answers(text: str) -> list[Mark]:
    """All marks, in the order of the text. An <answer> extends to the next tag; a box may hold one level of braces."""
    tags = tags_in(text)
    ends = [tag.start() for tag in tags[1:]] + [len(text)]
    marks = [
        Mark(tag.start(), "tag", text[tag.end() : end])
        for tag, end in zip(tags, ends, strict=False)
        if tag[0] == "<answer>"
    ]
    marks += [Mark(match.start(), kind, match[1]) for kind, mark in _MARKS.items() for match in mark.finditer(text)]
    return sorted(marks)


def tags_in(text: str) -> list[re.Match[str]]:
    """All <reasoning>, </reasoning>, <answer> and </answer> tags, in order."""
    return list(_TAG.finditer(text))


def same(answer: str | None, gold: str) -> bool:
    """True for the same text apart from surrounding white space and $, or the same plain number."""
    if answer is None or not (trimmed := trim(answer)):
        return False
    number = number_in(answer)
    return trimmed == trim(gold) or (number is not None and number == number_in(gold))


def trim(answer: str) -> str:
    return answer.strip().strip("$").strip()


def number_in(answer: str) -> Fraction | None:
    """The value of ``-3``, ``1,234.5`` or ``3/4``; None for anything else or longer than ``MAX_ANSWER_CHARS``."""
    text = trim(answer)
    if len(text) > MAX_ANSWER_CHARS or not _NUMBER.fullmatch(text):
        return None
    try:
        return Fraction(text.replace(",", ""))
    except ZeroDivisionError:
        return None
