"""Test problems that are in the training data of the evaluated runs."""

from collections.abc import Iterable
from typing import Literal

from pipeline.data.splits import normalized

Overlap = Literal["exact", "normalised"]


class TrainingQuestions:
    """Questions that models were trained on, to look others up in."""

    def __init__(self, questions: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self._normalised: set[str] = set()
        self.add(questions)

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, questions: Iterable[str]) -> None:
        for question in questions:
            self._exact.add(question.strip())
            self._normalised.add(normalized(question))

    def find(self, question: str) -> Overlap | None:
        """``exact``: the same text. ``normalised``: the same letters and digits, whatever their case."""
        if question.strip() in self._exact:
            return "exact"
        return "normalised" if normalized(question) in self._normalised else None
