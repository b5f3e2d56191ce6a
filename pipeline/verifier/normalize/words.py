"""Answers that are words: names, colours, yes and no, letters of a choice."""

import re
import unicodedata

from pipeline.verifier.normalize.languages import NO_SOLUTION
from pipeline.verifier.normalize.spelling import TEXT_CLOSE, TEXT_OPEN

_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s*)?"
    r"(?:\{?\s*\(\s*([A-J])\s*\)[\s}.:]*+|\(?\s*([A-J])(?:\s*$|\s*[.:)]\s*+|\s+-\s+(?=[^\W\d_]{3})))"
    r"(?![\^_+*/=<>,&]|-(?![0-9.\\])|(?:and|or)\b|\(?[A-J]\b)(.*)",
    re.DOTALL | re.IGNORECASE,
)
"""A letter, and the text after it. A second letter or an operator after it makes it a list or a formula."""
_NOISE = re.compile(rf"[{TEXT_OPEN}{TEXT_CLOSE}\"'.,;:!?*_`()\\~-]+")
_ARTICLE = re.compile(r"^(?:the|a|an|it is|it's|they are|there are|there is)\s+")
_SYNONYMS = {
    "no solutions": "no solution", "no real solution": "no solution", "no real solutions": "no solution",
    "none": "no solution", "there are no solutions": "no solution", "no such solution": "no solution",
    "the empty set": "empty set", "dne": "does not exist", "doesnt exist": "does not exist",
    "not exist": "does not exist", "not defined": "undefined", "correct": "true", "incorrect": "false",
    "y": "yes", "n": "no", "real numbers": "all real numbers", "all reals": "all real numbers",
    **dict.fromkeys(NO_SOLUTION, "no solution"),
}  # fmt: skip
_MAX_CHARS = 2000


def plain_words(text: str) -> str:
    """The text in lower case, without marks, articles and punctuation."""
    text = unicodedata.normalize("NFKC", text[:_MAX_CHARS]).casefold().replace("'", "").replace("-", " ")
    text = " ".join(_NOISE.sub(" ", text).split())
    text = _ARTICLE.sub("", text)
    return _SYNONYMS.get(text, text)


def same_words(answer: str, gold: str) -> bool:
    return plain_words(answer) == plain_words(gold) != ""


def looks_like_words(text: str) -> bool:
    """True if text that is not mathematics can be an answer in words: it has letters, and no broken LaTeX."""
    return any(c.isalnum() for c in text) and not re.search(r"\\[A-Za-z]|[{}\\^_]|=>", text.replace("\\ ", " "))


def choice_letter(text: str) -> tuple[str, str] | None:
    """The letter and the text of a multiple-choice answer: ``B``, ``(B)``, ``B. 42``, ``B: language family``."""
    match = _CHOICE.fullmatch(text.replace(TEXT_OPEN, " ").replace(TEXT_CLOSE, " ").strip())
    return (match[1] or match[2], match[3].strip()) if match else None
