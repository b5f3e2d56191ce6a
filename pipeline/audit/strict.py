r"""The second scorer: one answer, marked as it was asked for, that is the gold text or the same plain number.

It imports nothing of the project. What it does not understand is not correct to it; that is a reason to look, and no
proof of anything. Completions are hostile: their length is bounded, and no expression here backtracks.
"""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_COMPLETION_CHARS, MAX_ANSWER_CHARS = 100_000, 200

DISAGREEMENTS = {
    "value": "The first scorer says correct; the last marked answer is another number than the gold one.",
    "form": "The first scorer says correct; the answer is in a form that the strict one does not read, such as a unit.",
    "format": "The first scorer says correct; the last marked answer is the gold one, or none is marked. The marks "
    "asked for are missing, doubled or misplaced.",
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
    """An answer that the completion marks as one."""

    start: int
    kind: str
    """``tag``, ``hash``, ``phrase`` or ``box``."""
    answer: str


class Reading(NamedTuple):
    answer: str | None
    """The last one that is marked; None without any."""
    is_well_formed: bool


def strict_correct(completion: str, gold: str, tagged: bool = True) -> bool:
    """Whether the completion has the form asked for and its answer is the gold one, by the narrow rule of ``same``.

    Args:
        tagged: as ``read``.
    """
    reading = read(completion, tagged)
    return reading.is_well_formed and same(reading.answer, gold)


def disagreement(completion: str, gold: str, is_correct: bool, tagged: bool = True) -> str | None:
    """How the strict scorer disagrees with a first one, by a name of ``DISAGREEMENTS``; None where they agree.

    Args:
        is_correct: what the first scorer says.
        tagged: as ``read``.
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
    """The answer of a completion, and whether it stands where it was asked for.

    Args:
        tagged: well-formed is one <reasoning> section and after it one <answer> section. False, for plain-text prompts:
            ``####``, ``The answer is:`` and a box, each at most once and all with the same answer.
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
    """In the order of the text. An <answer> goes on to the next tag, a box has at most one level of braces in it."""
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
    """<reasoning>, </reasoning>, <answer> and </answer>, in order."""
    return list(_TAG.finditer(text))


def same(answer: str | None, gold: str) -> bool:
    """The same text but for white space and $ around it, or the same plain number."""
    if answer is None or not (trimmed := trim(answer)):
        return False
    number = number_in(answer)
    return trimmed == trim(gold) or (number is not None and number == number_in(gold))


def trim(answer: str) -> str:
    return answer.strip().strip("$").strip()


def number_in(answer: str) -> Fraction | None:
    """The value of ``-3``, ``1,234.5`` or ``3/4``; None of anything else, or longer than ``MAX_ANSWER_CHARS``."""
    text = trim(answer)
    if len(text) > MAX_ANSWER_CHARS or not _NUMBER.fullmatch(text):
        return None
    try:
        return Fraction(text.replace(",", ""))
    except ZeroDivisionError:
        return None
