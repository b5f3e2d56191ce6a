"""Splits a completion at its tags into reasoning, answer section and the text outside both."""

import re
from typing import NamedTuple

_TAG = re.compile(r"<(/?)(answer|reasoning|think|thinking)>", re.IGNORECASE)


class Sections(NamedTuple):
    outside: str
    """The text outside the reasoning."""
    answer: str | None
    """The last complete answer section. One inside the reasoning counts only if the reasoning is never closed."""
    reasoning: str
    """Closed reasoning; empty if it was cut off."""


def split_sections(text: str) -> Sections:
    """The sections of a completion. The chat template may have opened the reasoning already."""
    splitter = _Splitter(text)
    for tag in _TAG.finditer(text):
        splitter.add(tag)
    return splitter.finish()


class _Splitter:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._open_reasoning = ""
        """The name of the tag that opened the reasoning; empty outside it."""
        self._outside: list[str] = []
        self._reasoning: list[str] = []
        self._answer: str | None = None
        self._answer_start = 0
        """0: no answer section is open."""
        self._inner_answer: str | None = None
        """The same within the reasoning."""
        self._inner_start = 0

    def add(self, tag: re.Match[str]) -> None:
        """Take the text up to a tag, and the tag."""
        is_closing, name = bool(tag[1]), tag[2].lower().replace("thinking", "think")
        piece = self._text[self._position : tag.start()]
        self._position = tag.end()
        if is_closing and name != "answer" and self._open_reasoning in (name, ""):
            self._close_reasoning(piece)
            return
        self._current().append(piece)
        if name == "answer":
            self._add_answer_tag(tag, is_closing)
        elif not is_closing:
            self._open_reasoning = self._open_reasoning or name

    def finish(self) -> Sections:
        self._current().append(self._text[self._position :])
        answer = self._inner_answer if self._answer is None else self._answer
        return Sections(" ".join(self._outside), answer, "" if self._open_reasoning else " ".join(self._reasoning))

    def _current(self) -> list[str]:
        return self._reasoning if self._open_reasoning else self._outside

    def _close_reasoning(self, piece: str) -> None:
        if not self._open_reasoning:  # the prompt opened it: all text so far is reasoning
            self._reasoning += self._outside
            self._outside, self._answer, self._answer_start = [], None, 0
        self._reasoning.append(piece)
        self._open_reasoning, self._inner_answer = "", None

    def _add_answer_tag(self, tag: re.Match[str], is_closing: bool) -> None:
        start = 0 if is_closing else tag.end()
        if self._open_reasoning:
            if is_closing and self._inner_start:
                self._inner_answer = self._text[self._inner_start : tag.start()]
            self._inner_start = start
        else:
            if is_closing and self._answer_start:
                self._answer = self._text[self._answer_start : tag.start()]
            self._answer_start = start
