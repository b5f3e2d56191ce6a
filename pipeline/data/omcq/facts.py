"""Facts of a file, and which of them can be asked about."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipeline.data.rows import Row, file_rows
from pipeline.errors import DataError

FIELDS = ("subject", "relation_id", "relation_label", "template", "object")


@dataclass(frozen=True, slots=True)
class Fact:
    subject: str
    relation: str
    label: str
    object: str
    template: str
    """``[X] is located in [Y].``"""

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for facts that differ only in case, width of letters and white space."""
        return normal(self.subject), self.relation, normal(self.object)


def normal(text: str) -> str:
    """Equal for texts that differ only in case, width of letters and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_facts(path: Path) -> list[Fact]:
    """The facts of a file, each once.

    Raises:
        DataError: the file cannot be read, or a row is not a fact.
    """
    facts: dict[tuple[str, str, str], Fact] = {}
    for number, row in enumerate(file_rows(path, FIELDS), 1):
        fact = _fact(row, f"{path.name} row {number}")
        facts.setdefault(fact.key, fact)
    return list(facts.values())


def _fact(row: Row, place: str) -> Fact:
    subject, relation, label, template, object = (row.text(name) for name in FIELDS)
    if not all((subject, relation, template, object)):
        raise DataError(f"{place}: a fact must have {', '.join(FIELDS)}, got an empty or missing one.")
    if template.count("[X]") != 1 or template.count("[Y]") != 1:
        raise DataError(f"{place}: template must hold [X] and [Y] once each, got {template!r:.80}.")
    return Fact(subject, relation, label or relation, object, re.sub(r"\s+([.?!])$", r"\1", template))


class Related:
    """Which things any fact relates: a wrong option must not be related to the subject."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._of: defaultdict[str, set[str]] = defaultdict(set)
        for fact in facts:
            subject, _, object = fact.key
            self._of[subject].add(object)
            self._of[object].add(subject)  # neighbours and twin cities are related both ways

    def to(self, thing: str) -> set[str]:
        """Normal forms of the thing itself and of all that is related to it."""
        name = normal(thing)
        return {name, *self._of[name]}


class Distractors:
    """Draws wrong options: objects of the same relation.

    Args:
        by_frequency: an object is as likely as it is frequent in the relation. If all were equally likely, the most
            frequent of the options would be the answer too often.
    """

    def __init__(self, facts: Sequence[Fact], *, by_frequency: bool) -> None:
        self._related = Related(facts)
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        spelling: dict[str, str] = {}
        for fact in facts:
            self._counts[fact.relation][spelling.setdefault(normal(fact.object), fact.object)] += 1
        self._weight: Callable[[int], int] = int if by_frequency else bool

    def draw(self, fact: Fact, num_options: int, random: Random) -> list[str] | None:
        """All wrong options of a question, or None if the relation has too few.

        None of them is related to the subject, and none contains another option.
        """
        barred = self._related.to(fact.subject)
        weights = {o: self._weight(n) for o, n in self._counts[fact.relation].items() if normal(o) not in barred}
        chosen = [fact.object]
        while weights and len(chosen) < num_options:
            (drawn,) = random.choices(list(weights), list(weights.values()))
            del weights[drawn]
            if not any(_contains(drawn, option) or _contains(option, drawn) for option in chosen):
                chosen.append(drawn)
        return chosen[1:] if len(chosen) == num_options else None


def gives_itself_away(fact: Fact) -> bool:
    """The subject contains the object: Bank of Canada, Canada."""
    return _contains(fact.subject, fact.object)


def _contains(text: str, part: str) -> bool:
    return normal(part) in normal(text)
