"""Similarity of two statements, with or without their numbers, names and things.

A skeleton is a statement with numbers, names and things masked: "Mia has 5 jars with 11 stones in each jar."
becomes ``@name has # @thing with # @thing in each @thing``. The rules are simple enough for any English text:

- a number is digits, or a word such as "twelve";
- a name is a capitalised word, unless it begins a sentence and is common there (``_COMMON``);
- a thing is the word that a number counts, wherever it occurs, in singular or plural.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from math import log, sqrt
from typing import Any, Literal, NamedTuple

from pipeline.data.stories import read_story

Kind = Literal["word", "number", "name", "thing"]
_MASKS: dict[Kind, str] = {"number": "#", "name": "@name", "thing": "@thing"}
_TOKEN = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|[^\W\d_]+|[-+*/^=<>%×÷]")
_INNER_CAPITAL = re.compile(r"(?<=[a-z0-9,] )[A-Z][^\W\d_]*")
_NUMBER_WORDS = """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million dozen
"""
_COMMON_WORDS = """
    a an the this that these those he she it they we you i his her its their our your him them there here and or but
    if so then than as of in on at to from with without by for after before when while during until since because
    each every all any some no none both either neither other another one half twice again together altogether
    is are was were be been has have had do does did can could will would should must may might not
    how what which who whose whom where why find let given suppose assume consider determine compute calculate
    evaluate simplify solve express prove show write today yesterday tomorrow later next first second third
    last finally now also only just more fewer less times many much total left per except into out up down over under
    between among equals equal plus minus
"""
_NUMBERS = frozenset(_NUMBER_WORDS.split())
_COMMON = frozenset(_COMMON_WORDS.split())
_SKIPPED = frozenset(("more", "fewer", "less", "times", "as", "many", "much", "of", "other", "the", "%"))
"""Words that may stand between a number and what it counts: 3 times as many stones."""
Reading = Callable[[str], list[str]]
"""A function that returns the words of a text to compare."""


class Word(NamedTuple):
    text: str
    """In lower case."""
    kind: Kind


@lru_cache(4096)
def read_words(text: str) -> tuple[Word, ...]:
    """The words, numbers and operators of a text, in order, without other signs."""
    text = unicodedata.normalize("NFKC", text)
    tokens = _TOKEN.findall(text)
    names = {name.lower() for name in _INNER_CAPITAL.findall(text)} - {"i"}
    things = _things([token.lower() for token in tokens])
    return tuple(Word(token.lower(), _kind(token, names, things)) for token in tokens)


@lru_cache(4096)
def generic_words(text: str) -> tuple[Word, ...]:
    """As ``read_words``. The grammar of stories tells names that look like none, such as "the bakery", and made-up
    words."""
    story = read_story(text)
    return read_words(story.generic if story else text)


def skeleton(text: str) -> list[str]:
    """The words with numbers, names and things masked."""
    return [_MASKS.get(word.kind, word.text) for word in generic_words(text)]


def plain(text: str) -> list[str]:
    return [word.text for word in read_words(text)]


def anonymous(text: str) -> list[str]:
    """The words with numbers and names masked."""
    return [word.text if word.kind == "thing" else _MASKS.get(word.kind, word.text) for word in generic_words(text)]


def with_numbers(text: str) -> list[str]:
    """The words with names and things masked: equal for copies about other people and things."""
    return [word.text if word.kind == "number" else _MASKS.get(word.kind, word.text) for word in generic_words(text)]


def without_numbers(text: str) -> list[str]:
    return ["#" if word.kind == "number" else word.text for word in read_words(text)]


def numbers(text: str) -> list[str]:
    return [word.text for word in read_words(text) if word.kind == "number"]


def names_and_things(text: str) -> set[str]:
    """The names and things of a text, in singular."""
    return {_singular(word.text) for word in read_words(text) if word.kind in ("name", "thing")}


def word_cosine(first: Sequence[str], second: Sequence[str]) -> float:
    """Cosine of the word counts of two texts."""
    return cosine(Counter(first), Counter(second))


def cosine(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Cosine of two sets of counts; 0 if one is empty."""
    product = sum(value * second.get(key, 0) for key, value in first.items())
    norms = sum(value**2 for value in first.values()) * sum(value**2 for value in second.values())
    return min(1.0, product / sqrt(norms)) if norms else 0.0


def phrases(words: Sequence[str]) -> dict[str, float]:
    """The 1- to 3-grams of the words, with weight 1 + ln n for one that occurs n times."""
    return {gram: 1 + log(count) for gram, count in Counter(ngrams(words)).items()}


def ngrams(words: Sequence[str]) -> list[str]:
    """All runs of one to three words."""
    return [" ".join(run) for size in (1, 2, 3) for run in zip(*(words[i:] for i in range(size)), strict=False)]


class KnownTexts:
    """Texts that others are compared with, by the cosine of the sublinear TF-IDF of 1- to 3-grams.

    N-grams are hashed, so those of later texts count too: with a fixed vocabulary, a text of new words would be judged
    by the few known words in it. The idf weights are those of the texts passed to the constructor.
    """

    def __init__(self, texts: Iterable[str], reading: Reading = anonymous) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer  # slow to import

        self._reading = reading
        self._counts = HashingVectorizer(analyzer=ngrams, alternate_sign=False, norm=None)
        distinct = list(dict.fromkeys(tuple(reading(text)) for text in texts))
        counts = self._counts.transform(distinct or [()])
        self._weights = TfidfTransformer(sublinear_tf=True).fit(counts)
        self._fixed = _by_ngram(self._weights.transform(counts))
        self._later: dict[str, Any] = {}
        self._later_texts: Sequence[str] = ()
        self._history = _by_ngram(self._rows([]))

    def set_history(self, texts: Sequence[str]) -> None:
        """Replace the later texts. Those that stay are not vectorised again."""
        if texts is self._later_texts:
            return
        from scipy.sparse import vstack

        new = [text for text in dict.fromkeys(texts) if text not in self._later]
        rows = self._rows(new)
        known = self._later | {text: rows[index : index + 1] for index, text in enumerate(new)}
        self._later = {text: known[text] for text in texts}
        self._later_texts = texts
        self._history = _by_ngram(vstack([*self._later.values()]) if self._later else self._rows([]))

    def similarities(self, texts: Sequence[str]) -> list[float]:
        """Similarity of each text to its most similar known text; 0 if none is known."""
        if not texts:
            return []
        rows = self._rows(texts)
        highest = [(rows @ known).max(axis=1).toarray().ravel() for known in (self._fixed, self._history)]
        return [float(max(pair)) for pair in zip(*highest, strict=True)]

    def _rows(self, texts: Sequence[str]) -> Any:
        """Sparse rows [num_texts, num_ngrams] of unit length; one empty row for no texts."""
        return self._weights.transform(self._counts.transform([self._reading(text) for text in texts] or [[]]))


def _by_ngram(rows: Any) -> Any:
    """The rows transposed and stored by n-gram, so that a product with a few rows visits only their n-grams."""
    return rows.T.tocsr()


def _things(tokens: Sequence[str]) -> set[str]:
    """The things that numbers count, in singular. "How many" counts as a number."""
    found = set()
    for index, token in enumerate(tokens):
        if _is_number(token) or (token == "many" and index and tokens[index - 1] == "how"):
            following = (word for word in islice(tokens, index + 1, index + 6) if word not in _SKIPPED)
            counted = next(following, "")
            if counted.isalpha() and len(counted) > 1 and counted not in _COMMON and not _is_number(counted):
                found.add(_singular(counted))
    return found


def _kind(token: str, names: set[str], things: set[str]) -> Kind:
    lower = token.lower()
    if _is_number(lower):
        return "number"
    if _singular(lower) in things:
        return "thing"
    return "name" if token[0].isupper() and (lower in names or lower not in _COMMON) else "word"


def _is_number(lower: str) -> bool:
    return lower[0].isdigit() or lower in _NUMBERS


def _singular(lower: str) -> str:
    """Good enough to match "jars" with "jar", "boxes" with "box" and "berries" with "berry"."""
    if len(lower) < 4 or lower.endswith("ss"):
        return lower
    if lower.endswith("ies"):
        return lower[:-3] + "y"
    return lower[:-2] if lower.endswith(("ches", "shes", "xes", "sses")) else lower.removesuffix("s")
