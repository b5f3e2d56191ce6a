"""Finds test problems that the training data of the evaluated runs contains."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Overlap = Literal["exact", "normalised"]

_SPACING = re.compile(r"\s+|\\(?:left|right)(?![a-zA-Z])|\\[,;:! ]|\$|~")
_PUNCTUATION = re.compile(r"[.,](?![0-9])|[;:?\"`\u201c\u201d]")


def normalised(question: str) -> str:
    """The question without case, white space, punctuation, and the delimiters and spacing of formulas.

    Operators, signs, brackets, primes and decimal points stay: ``3 + 4`` and ``3 - 4`` are different problems.
    """
    folded = _SPACING.sub("", unicodedata.normalize("NFKC", question).casefold()).replace("\u2019", "'")
    return _PUNCTUATION.sub("", folded) or question.strip()


class TrainingQuestions:
    """Questions that a model was trained on."""

    def __init__(self, questions: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self._normalised: set[str] = set()
        self.add(questions)

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, questions: Iterable[str]) -> None:
        for question in questions:
            self._exact.add(question.strip())
            self._normalised.add(normalised(question))

    def find(self, question: str) -> Overlap | None:
        """``exact``: the same text apart from outer white space. ``normalised``: equal after ``normalised``."""
        if question.strip() in self._exact:
            return "exact"
        return "normalised" if normalised(question) in self._normalised else None
