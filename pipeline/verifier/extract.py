"""Find the final answer in a completion. Linear in its length, whatever the text."""

import re
from collections import deque

_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_PHRASE = re.compile(r"\banswer(?:\s+is\b|\s*:)[\s:*_]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)|\n")
_NUMBER = re.compile(
    r"(?<![\w)])[-−]?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+|(?=\.[0-9]))"
    r"(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?:/[0-9]+)?%?"
    r"|[0-9]+(?:\.[0-9]+)?"
)
_BEFORE_WORD = re.compile(r"\s+[A-Za-z]{2}")


def extract(completion: str, *, fallback: bool = True) -> str | None:
    """The final answer as the policy wrote it, or None.

    The last complete ``<answer>`` section; when there is one, nothing else counts. Otherwise, outside
    the reasoning and in this order: the last ``\\boxed{}``, ``#### n``, "the answer is n" (or
    "final answer: n"), and, with ``fallback``, the last number.
    """
    section = _last_section(completion)
    if section is not None:
        return section.strip() or None
    text = _without(_without(completion, "think"), "reasoning")
    answer = _last_box(text) or _after_hashes(text) or _after_phrase(text)
    return answer or (last_number(text) if fallback else None)


def last_number(text: str) -> str | None:
    """The last number anywhere in the text, with its sign, ``$``, ``%`` or denominator."""
    last = deque(_NUMBER.finditer(text), maxlen=1)
    return last[0].group() if last else None


def _last_section(text: str) -> str | None:
    start = text.rfind("<answer>", 0, max(text.rfind("</answer>"), 0))
    if start < 0:
        return None
    start += len("<answer>")
    return text[start : text.index("</answer>", start)]


def _without(text: str, tag: str) -> str:
    """Drop ``<tag>`` sections. The chat template may have opened the first, a length limit cut off the last."""
    head, *rest = text.split(f"<{tag}>")
    return " ".join([head.rpartition(f"</{tag}>")[2], *(part.partition(f"</{tag}>")[2] for part in rest)])


def _last_box(text: str) -> str | None:
    """Of the boxes whose braces close, the content of the one that opens last."""
    best: tuple[int, int] | None = None
    open_starts: list[int | None] = []  # where the content of a box starts, None for other braces
    for token in _BOX_OR_BRACE.finditer(text):
        if token.group().endswith("{") and token.group() != "\\{":
            open_starts.append(token.end() if len(token.group()) > 1 else None)
        elif token.group() == "}" and open_starts:
            start = open_starts.pop()
            if start is not None and (best is None or start > best[0]):
                best = (start, token.start())
    return text[best[0] : best[1]].strip() if best else None


def _after_hashes(text: str) -> str | None:
    _, found, rest = text.rpartition("####")
    return rest.partition("\n")[0].strip() if found else None


def _after_phrase(text: str) -> str | None:
    last = deque(_PHRASE.finditer(text), maxlen=1)
    if not last:
        return None
    start = last[0].end()
    end = _SENTENCE_END.search(text, start)
    sentence = text[start : end.start() if end else len(text)].strip(" \t\r*_")
    number = _NUMBER.match(sentence)
    if number and _BEFORE_WORD.match(sentence, number.end()):
        return number.group()
    return sentence
