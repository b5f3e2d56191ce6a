"""A second, plain search for copies of test problems among the kept problems.

It shares no code with the filter (filters.py), so it does not repeat a fault of the filter. It compares sets of runs of
three words, with numbers masked, of every statement and every test problem of similar length.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

_TOKEN = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+|[-+*/^=<>%\u00d7\u00f7]")
_WORD = re.compile(r"(?<!\\)\b[^\W\d_]{2,}")
_MIN_WORDS = 6
_Text = tuple[str, frozenset[tuple[str, ...]]]
"""A text without case, white space and punctuation; its runs of three words."""


def copies(statements: Iterable[str], test_problems: Mapping[str, Iterable[str]], near: float) -> Iterator[str]:
    """Yield a line for every statement that is a copy of a test problem.

    A copy is equal apart from case, white space and punctuation, or has a share ``near`` of all runs in common.
    """
    known = [(name, _read(text)) for name, texts in test_problems.items() for text in texts]
    for statement in statements:
        own = _read(statement)
        if found := next((name for name, other in known if _is_copy(own, other, near)), None):
            yield f"{statement[:60]!r} of {found}"


def _read(text: str) -> _Text:
    text = unicodedata.normalize("NFKC", text)
    words = _TOKEN.findall(text.lower())
    if len(_WORD.findall(text)) >= _MIN_WORDS:
        words = ["#" if word[0].isdigit() else word for word in words]
    runs = frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])
    return re.sub(r"[\s$.,;:?!]", "", text.casefold()), runs


def _is_copy(first: _Text, second: _Text, near: float) -> bool:
    (flat, runs), (other_flat, other_runs) = first, second
    if flat == other_flat:
        return True
    small, large = sorted((len(runs), len(other_runs)))
    if small < near * large:
        return False
    num_shared = len(runs & other_runs)
    return num_shared >= near * (small + large - num_shared)
