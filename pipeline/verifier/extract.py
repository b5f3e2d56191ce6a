"""Finds the final answer in a completion. Linear in its length, whatever the text. docs/verifier.md has the rules."""

import re
from collections import deque
from typing import NamedTuple

from pipeline.verifier.normalize.languages import (
    begins_with_a_bound,
    changes_first_number,
    changes_last_number,
    denies_next_number,
    ends_in_a_sign,
    is_below_zero,
)
from pipeline.verifier.places.bare import bare_answer, one_line
from pipeline.verifier.places.boxes import last_boxes, last_closed_boxes
from pipeline.verifier.places.phrases import after_hashes, after_phrase, tidy
from pipeline.verifier.places.sections import split_sections
from pipeline.verifier.places.special_tokens import without_special_tokens

_NUMBER = re.compile(
    r"(?<![\w)])[-−]?[$€£]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?![0-9])|[0-9]+|(?=\.[0-9]))"
    r"(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?:(?:/|:(?=[0-9]))[0-9]+)*\s?%?"
    r"|[0-9]+(?:\.[0-9]+)?"
)
_FENCE = re.compile(r"```[a-zA-Z]*\n?([^`]*)```")
_MARKED = re.compile(r"\*\*([^*\n]{1,200})\*\*|`([^`\n]{1,200})`|__([^_\n]{1,200})__")
_FORMULA = re.compile(
    r"\$\$([^$]{1,500})\$\$"
    r"|\$([^$\n]{1,300})\$"
    r"|\\\(([^\n]{1,300}?)\\\)"
    r"|\\\[([^\\]{0,5}(?:\\[^\]]|[^\\]){1,500})\\\]"
)
_HEDGE = re.compile(
    r"^(?:not|neither|either|maybe|perhaps|possibly|between|probably|isn't|is not|cannot be|can't be|it is not"
    r"|it's not)\b"
    r"|\b(?:maybe|perhaps|possibly|or maybe|not sure|or possibly|either)\b"
    r"|\?$",
    re.IGNORECASE,
)
_OR = re.compile(r"\s*,?\s+or\s+", re.IGNORECASE)
_CANDIDATE = re.compile(r"[0-9]|^\(?[A-J]\)?$")
_NAMED = re.compile(r"[A-Za-z_0-9(){}]+\s*(?:=|<|>|\\le|\\ge|≤|≥|\\in)")
_NOT_BEFORE = re.compile(r"\b(?:not|isn't|never|nor)\s+(?:\S+\s+)?$", re.IGNORECASE)
_CHOICE_LINE = re.compile(r"(?:^|\n)\s*\(?([A-J])\)?[.:)]?\s*$")
_MAX_HEDGE_CHARS = 500


class Found(NamedTuple):
    """Answer of a completion, found outside its reasoning."""

    answer: str | None
    """The final answer, hedges included."""
    line: str = ""
    """All of the text, if it is one short line and no answer section."""


def extract(completion: str, *, fallback: bool = True) -> str | None:
    """The final answer as the policy wrote it, or None if there is no answer or only a hedge ("42 or 43", "not 42").

    The last complete ``<answer>`` section; if there is one, nothing else counts. Otherwise, outside the reasoning and
    in this order: ``\\boxed{}`` (several side by side are a list), ``#### n``, "the answer is n" (or "final answer: n",
    also in other languages), the whole text if it is nothing but an answer (``x = 3``), the last bold or code span, and
    the last formula or number. Without ``fallback``, only what is marked as the answer counts.
    """
    answer = find(completion, fallback=fallback).answer
    return None if answer is None or is_hedge(answer) else answer


def find(completion: str, *, fallback: bool = True) -> Found:
    """The answer as ``extract`` finds it, but hedges included, and the line that the completion consists of."""
    sections = split_sections(without_special_tokens(completion))
    if sections.answer is not None:
        return Found(_from_section(sections.answer))
    line = one_line(sections.outside)
    answer = _from_text(sections.outside, line, fallback=fallback)
    if answer is None and not sections.outside.strip():
        reasoning = sections.reasoning
        answer = last_boxes(reasoning) or after_hashes(reasoning) or after_phrase(reasoning)
    return Found(answer, line)


def marked_answer(text: str) -> str | None:
    """The content of the last boxes, or the text after ``####``; None without either."""
    return last_closed_boxes(text) or after_hashes(text)


def last_number(text: str) -> str | None:
    """The last number anywhere in the text, with its sign, ``$``, ``%`` or denominator."""
    last = deque(_NUMBER.finditer(text), maxlen=1)
    return last[0].group().strip() if last else None


def is_hedge(answer: str) -> bool:
    """True if it names several candidates, or only says what the answer is not. ``x = 1 or x = 2`` is not a hedge."""
    if len(answer) > _MAX_HEDGE_CHARS:
        return False
    if _HEDGE.search(answer) or changes_first_number(answer):
        return True
    parts = _OR.split(answer)
    is_choice = len(parts) > 1 and all(_CANDIDATE.search(part.strip(' $*"“”')) for part in parts)
    return is_choice and not all(_NAMED.search(part) for part in parts)


def _from_section(section: str) -> str | None:
    """An answer section may contain a box, hashes or a phrase."""
    section = without_special_tokens(section).strip()
    if not section:
        return None
    marked = marked_answer(section)
    if not marked and len(section) < 2000 and not section.startswith("Answer Choice"):
        marked = after_phrase(section)
    return marked or tidy(section)


def _from_text(text: str, line: str, *, fallback: bool) -> str | None:
    answer = last_boxes(text) or after_hashes(text) or after_phrase(text)
    answer = answer or (bare_answer(line) if fallback else None) or _last_marked(text)
    return answer or (_last_formula_or_number(text) if fallback and not begins_with_a_bound(line) else None)


def _last_marked(text: str) -> str | None:
    """The last code block, or bold or code span of the last lines, that looks like an answer."""
    fence = deque(_FENCE.finditer(text), maxlen=1)
    if fence and len(fence[0][1].strip()) <= 200 and not text[fence[0].end() :].strip():
        return tidy(fence[0][1].strip().split("\n")[-1]) or None
    answer, start, end = None, 0, 0
    for match in _MARKED.finditer(text, max(0, len(text) - 2000)):
        content = (match[1] or match[2] or match[3]).strip()
        is_short = len(content) <= 60 and not content.endswith(":")
        is_last = not text[match.end() :].strip(" .\n")
        if is_short and (is_last or any(c.isdigit() for c in content) or "\\" in content):
            answer, start, end = content, match.start(), match.end()
    if answer is None or any(c.isdigit() for c in text[end:]) or _is_changed(text, start, end):
        return None
    return tidy(answer)


def _last_formula_or_number(text: str) -> str | None:
    """The last formula, from its last ``=`` on, or the last number, whichever comes later."""
    formula = deque(_FORMULA.finditer(text), maxlen=1)
    number = deque(_NUMBER.finditer(text), maxlen=1)
    if formula and (not number or number[0].end() <= formula[0].end()):
        content = next(group for group in formula[0].groups() if group)
        value = content.rpartition("=")[2].strip(" .,")
        return None if _is_changed(text, *formula[0].span(), worked="=" in content) else value or None
    letter = _CHOICE_LINE.search(text[-200:])
    if letter:
        return letter[1]
    if not number or _is_changed(text, *number[0].span()):
        return None
    before = text[max(0, number[0].start() - 60) : number[0].start()]
    if re.search(r"[0-9]\s+or\s+$", before):
        return None
    is_negative = ends_in_a_sign(before) or is_below_zero(text[number[0].end() : number[0].end() + 60])
    return ("-" if is_negative else "") + number[0].group().strip()


def _is_changed(text: str, start: int, end: int, *, worked: bool = False) -> bool:
    """True if the words around a formula or number deny it. Those before a sum that is ``worked`` out are about it.

    In a sentence, "at most 7" answers how many there can be; alone it is no number.
    """
    before = text[max(0, start - 40) : start]
    is_denied = bool(_NOT_BEFORE.search(before)) or (not worked and denies_next_number(before))
    return is_denied or changes_last_number(text[end : end + 40])
