"""Chooses the written problems that are worth training on, and says why each of the others is not.

A row of a written problem is judged alone (its gate, its quality) and against texts: test sets, other data, and the
problems that were kept before it. So the order of the rows counts, and the same rows are always judged the same.
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
from pipeline.questions.quotas import Cell, Quotas
from pipeline.questions.rewards import training_statements
from pipeline.questions.rows import Row
from pipeline.questions.similarity import Reading, anonymous, plain, read_words, without_numbers
from pipeline.types import Problem

Reason = tuple[str, str]
"""The kind of a fault, and where it is."""
_WORD = re.compile(r"(?<!\\)\b[^\W\d_]{2,}")
TRAINING_DATA, HELD_OUT_DATA = "training data", "held-out data"
"""Names of a run's own data among the data sets that problems must not repeat."""
_RUN = 3
"""Consecutive words that are compared as one."""
MIN_WORDS = 6
"""Words that a text needs for its numbers to be masked. ``What is 3 + 4?`` is another problem with other numbers."""


def other_numbers(text: str) -> list[str]:
    """The words of a text, the same for all its numbers, unless it has hardly any words."""
    return without_numbers(text) if len(_WORD.findall(text)) >= MIN_WORDS else plain(text)


def other_names(text: str) -> list[str]:
    """The words and numbers of a text, the same for all its names and things."""
    return [f"@{word.kind}" if word.kind in ("name", "thing") else word.text for word in read_words(text)]


READINGS: tuple[Reading, ...] = (other_numbers, other_names)
"""Readings under which two texts are compared. Masking everything at once would make copies of honest problems."""


def other_people(text: str) -> list[str]:
    """The words of a text, the same for all its numbers and names, unless it has hardly any words."""
    return anonymous(text) if len(_WORD.findall(text)) >= MIN_WORDS else plain(text)


TEST_READINGS: tuple[Reading, ...] = (*READINGS, other_people)
"""Readings for copies of test problems. Some honest problems of one step are copies under the last one."""


@dataclass(frozen=True, slots=True)
class Match:
    """A text that a statement is a copy of."""

    kind: Literal["exact", "near"]
    text: str
    similarity: float


class Similar:
    """Texts that statements are compared with.

    ``exact``: equal after ``normalised``. ``near``: in one of the readings, both have mostly the same runs of three
    words. The similarity is the share of runs that both have among those that either has (Jaccard).

    Args:
        near: the similarity from which two texts are near copies.
        readings: what a near copy may differ in.
    """

    def __init__(self, texts: Iterable[str] = (), near: float = 0.8, readings: Sequence[Reading] = READINGS) -> None:
        self._near, self._readings = near, readings
        self._texts: list[str] = []
        self._exact: dict[str, int] = {}
        self._runs: list[list[frozenset[str]]] = [[] for _ in readings]
        """By reading: the runs of every text."""
        self._holders: list[dict[str, list[int]]] = [{} for _ in readings]
        """By reading: the texts that hold a run."""
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def texts(self) -> Sequence[str]:
        """Each once."""
        return self._texts

    def add(self, text: str) -> None:
        """Exact copies count once."""
        if (key := normalised(text)) in self._exact:
            return
        self._exact[key] = len(self._texts)
        for reading, runs, holders in zip(self._readings, self._runs, self._holders, strict=True):
            runs.append(_runs(reading(text)))
            for run in runs[-1]:
                holders.setdefault(run, []).append(len(self._texts))
        self._texts.append(text)

    def find(self, statement: str) -> Match | None:
        """The text that the statement is a copy of, the most similar one first; None if there is none."""
        if (position := self._exact.get(normalised(statement))) is not None:
            return Match("exact", self._texts[position], 1.0)
        similarity, position = max(self._nearest(index, statement) for index in range(len(self._readings)))
        return Match("near", self._texts[position], similarity) if similarity >= self._near else None

    def _nearest(self, index: int, statement: str) -> tuple[float, int]:
        """The highest similarity in one reading, and the position of its text; 0.0 if none can be a near copy.

        A near copy shares all runs but a few, so it holds one of the rarest few of them, plus one.
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
    """Judges rows one after the other; what it keeps, later ones are compared with.

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
        """The row with ``is_kept``, ``reason`` and ``detail``: the kind of fault, and where it is. Both are empty for a
        row that is kept."""
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
        """Counts a row that nothing is wrong with."""
        if self._quotas is None:
            return None
        cell = Cell.of(row)
        self._num_kept[cell] += 1
        return ("not needed", "") if self._num_kept[cell] > self._quotas[cell] else None


def stage_keeper(config: Config, training: Sequence[Problem], held_out: Sequence[Problem]) -> Keeper:
    """The keeper of problems written at the end of a stage. They must be no copies of its data."""
    keep = config.questions.keep
    gates = [term.name for term in config.reward.functions if term.gate]
    if not keep.compare_with_data:
        return Keeper(keep, gates)
    known = Similar(training_statements(training), keep.near_similarity)
    tests = Similar(training_statements(held_out), keep.near_similarity, TEST_READINGS)
    return Keeper(keep, gates, test_sets={HELD_OUT_DATA: tests}, others={TRAINING_DATA: known})


def _described(match: Match) -> str:
    return f"{match.similarity:.2f} similar to: {match.text}"
