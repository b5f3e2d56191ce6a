"""Chooses the written problems that are worth training on, and gives a reason for rejecting each of the others.

A row is judged by itself (gates, quality) and against other texts: test sets, other data, and the problems kept before
it. So the order of rows matters, and the same rows in the same order are always judged the same.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from pipeline.config import Config
from pipeline.config.questions import KeepConfig
from pipeline.evaluation.overlap import normalised
from pipeline.questions.computed import task_key
from pipeline.questions.quotas import Cell, Quotas
from pipeline.questions.rewards import training_statements
from pipeline.questions.rows import Row
from pipeline.questions.similarity import Reading, anonymous, generic_words, plain, without_numbers
from pipeline.types import Problem

Reason = tuple[str, str]
"""The kind of fault, and details."""
_WORD = re.compile(r"(?<!\\)\b[^\W\d_]{2,}")
TRAINING_DATA, HELD_OUT_DATA = "training data", "held-out data"
"""Names of a run's own data among the data sets that problems must not repeat."""
_RUN = 3
"""Number of consecutive words that are compared as one."""
MIN_WORDS = 6
"""Words that a text needs to have its numbers masked. ``What is 3 + 4?`` with other numbers is another problem."""


def other_numbers(text: str) -> list[str]:
    """The words of a text with numbers masked, unless it has hardly any words."""
    return without_numbers(text) if len(_WORD.findall(text)) >= MIN_WORDS else plain(text)


def other_names(text: str) -> list[str]:
    """The words and numbers of a text with names and things masked."""
    return [f"@{word.kind}" if word.kind in ("name", "thing") else word.text for word in generic_words(text)]


READINGS: tuple[Reading, ...] = (other_numbers, other_names)
"""Readings under which texts are compared. Under one mask for everything, honest problems would count as copies."""


def other_people(text: str) -> list[str]:
    """The words of a text with numbers and names masked, unless it has hardly any words."""
    return anonymous(text) if len(_WORD.findall(text)) >= MIN_WORDS else plain(text)


TEST_READINGS: tuple[Reading, ...] = (*READINGS, other_people)
"""Readings that find copies of test problems. Some honest one-step problems count as copies under the last one."""


@dataclass(frozen=True, slots=True)
class Match:
    """A text that a statement is a copy of."""

    kind: Literal["exact", "near"]
    text: str
    similarity: float


class Similar:
    """Texts that statements are compared with.

    A copy is ``exact`` if both are equal after ``normalised``, and ``near`` if both ask for the same computation or if
    in some reading they share most runs of three words. The similarity is the number of shared runs over the number of
    runs in either (Jaccard).

    Args:
        near: minimum similarity of near copies.
        readings: each masks something in which near copies may differ.
    """

    def __init__(self, texts: Iterable[str] = (), near: float = 0.8, readings: Sequence[Reading] = READINGS) -> None:
        self._near, self._readings = near, readings
        self._texts: list[str] = []
        self._exact: dict[str, int] = {}
        self._computations: dict[tuple[str, ...], int] = {}
        self._runs: list[list[frozenset[str]]] = [[] for _ in readings]
        """For each reading, the runs of every text."""
        self._holders: list[dict[str, list[int]]] = [{} for _ in readings]
        """For each reading, the texts that contain a run."""
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def texts(self) -> Sequence[str]:
        """The texts, without exact copies."""
        return self._texts

    def add(self, text: str) -> None:
        """Add a text, unless it is an exact copy of one that is here."""
        if (key := normalised(text)) in self._exact:
            return
        self._exact[key] = len(self._texts)
        if computation := task_key(text):
            self._computations.setdefault(computation, len(self._texts))
        for reading, runs, holders in zip(self._readings, self._runs, self._holders, strict=True):
            runs.append(_runs(reading(text)))
            for run in runs[-1]:
                holders.setdefault(run, []).append(len(self._texts))
        self._texts.append(text)

    def find(self, statement: str) -> Match | None:
        """The text that the statement copies most closely; None if it copies none."""
        if (position := self._exact.get(normalised(statement))) is not None:
            return Match("exact", self._texts[position], 1.0)
        if (position := self._computations.get(task_key(statement) or ())) is not None:
            return Match("near", self._texts[position], 1.0)
        similarity, position = max(self._nearest(index, statement) for index in range(len(self._readings)))
        return Match("near", self._texts[position], similarity) if similarity >= self._near else None

    def _nearest(self, index: int, statement: str) -> tuple[float, int]:
        """The highest similarity in one reading, and the position of its text; 0.0 if none can be a near copy.

        If a near copy can lack at most k of the statement's runs, it has one of the k + 1 rarest. Only texts that
        contain one of these are compared.
        """
        own, holders = _runs(self._readings[index](statement)), self._holders[index]
        rarest = sorted(own, key=lambda run: len(holders.get(run, ())))[: len(own) - ceil(self._near * len(own)) + 1]
        return max(
            (
                (len(own & runs) / len(own | runs), position)
                for position in {position for run in rarest for position in holders.get(run, ())}
                for runs in [self._runs[index][position]]
            ),
            default=(0.0, -1),
        )


def _runs(words: Sequence[str]) -> frozenset[str]:
    return frozenset(" ".join(words[i : i + _RUN]) for i in range(max(len(words) - _RUN + 1, 1)))


class Keeper:
    """Judges rows one after the other, and compares each with the problems kept so far.

    Args:
        gates: names of the reward parts that must not be 0.
        test_sets, others: texts by the name of their data set: test problems, and data that is not to be repeated.
            Near copies of TRAINING_DATA with other parameters are allowed.
        quotas: problems to keep of each cell. None: all that are good enough.
    """

    def __init__(
        self,
        config: KeepConfig,
        gates: Sequence[str] = (),
        test_sets: Mapping[str, Similar] | None = None,
        others: Mapping[str, Similar] | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self._config, self._gates, self._quotas = config, gates, quotas
        self._known = [("test problem", name, texts) for name, texts in (test_sets or {}).items()]
        self._known += [("copy", name, texts) for name, texts in (others or {}).items()]
        self._kept = Similar(near=config.near_similarity)
        self._num_kept = Counter[Cell]()

    def judged(self, row: Row) -> Row:
        """The row with ``is_kept``, and with the ``reason`` and ``detail`` of its rejection, which are empty if it is
        kept."""
        reason, detail = self._fault(row) or self._copied(row) or self._surplus(row) or ("", "")
        if not reason:
            self._kept.add(row["statement"])
        return row | {"is_kept": not reason, "reason": reason, "detail": detail}

    def _fault(self, row: Row) -> Reason | None:
        if not row["statement"]:
            return "not well formed", row.get("detail", "")
        if failed := [name for name in self._gates if not row["parts"].get(name)]:
            return f"fails {failed[0]}", ", ".join(failed)
        if row["quality"] < self._config.min_quality:
            return "low quality", f"{row['quality']:.2f} is below {self._config.min_quality:g}"
        return None

    def _copied(self, row: Row) -> Reason | None:
        statement = row["statement"]
        varies = row.get("kind") == "parameters"
        for what, name, texts in self._known:
            match = texts.find(statement)
            # Other parameters make a near copy of the original, and of its other variations, on purpose.
            is_meant = varies and name == TRAINING_DATA and match and match.kind == "near"
            if match and not is_meant:
                return f"{what}: {name} ({match.kind})", _described(match)
        match = self._kept.find(statement)
        return (f"{match.kind} duplicate", _described(match)) if match else None

    def _surplus(self, row: Row) -> Reason | None:
        """Count a row without faults, and reject it if its quota is already met."""
        if self._quotas is None:
            return None
        cell = Cell.of(row)
        self._num_kept[cell] += 1
        return ("not needed", "") if self._num_kept[cell] > self._quotas[cell] else None


def stage_keeper(config: Config, training: Sequence[Problem], held_out: Sequence[Problem]) -> Keeper:
    """The keeper of problems written at the end of a stage. By default it rejects copies of the run's data."""
    keep = config.questions.keep
    gates = [term.name for term in config.reward.functions if term.gate]
    if not keep.compare_with_data:
        return Keeper(keep, gates)
    known = Similar(training_statements(training), keep.near_similarity)
    tests = Similar(training_statements(held_out), keep.near_similarity, TEST_READINGS)
    return Keeper(keep, gates, test_sets={HELD_OUT_DATA: tests}, others={TRAINING_DATA: known})


def _described(match: Match) -> str:
    return f"{match.similarity:.2f} similar to: {match.text}"
