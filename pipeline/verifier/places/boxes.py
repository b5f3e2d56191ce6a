r"""Answers in ``\boxed{}`` and ``\fbox{}``. Linear in the length of the text."""

import re
from collections import deque

_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_WHOLE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(-?[0-9][0-9,.]*|\\?[A-Za-z]+(?![A-Za-z{]))"  # \boxed 9
    r"|\{([^$\n}][^$\n]{0,300}))"  # \boxed{9
)
_JOINER = re.compile(r"[\s$,;.]*(?:and|or)?[\s$,;]*(?:\\text\{\s*(?:and|or)\s*\})?[\s$]*(?:[a-zA-Z]\s*=\s*)?")
_MAX_BOXES = 100
_MAX_GAP = 30


def last_boxes(text: str) -> str | None:
    r"""The last boxes, or else the last ``\boxed 9`` or ``\boxed{9`` whose brace never closes."""
    return last_closed_boxes(text) or _open_box(text)


def last_closed_boxes(text: str) -> str | None:
    """The content of the last box, or of the last several if only "and" or a comma stands between them."""
    boxes = _closed_boxes(text)
    if not boxes:
        return None
    answers = [boxes[-1]]  # from the last on
    for box in reversed(boxes[-_MAX_BOXES:-1]):
        gap = text[box[1] + 1 : answers[-1][0] - 7]
        if len(gap) > _MAX_GAP or not _JOINER.fullmatch(gap.removesuffix("\\").removesuffix("\\b")):
            break
        answers.append(box)
    contents = [_innermost(text[start:end].strip()) for start, end in reversed(answers)]
    return ", ".join(dict.fromkeys(contents)) or None


def _innermost(content: str) -> str:
    while match := _WHOLE_BOX.fullmatch(content):
        content = match[1].strip()
    return content


def _open_box(text: str) -> str | None:
    bare = deque(_BARE_BOX.finditer(text), maxlen=1)
    return (bare[0][1] or bare[0][2]).strip().rstrip(".,") or None if bare else None


def _closed_boxes(text: str) -> list[tuple[int, int]]:
    """Start and end of the contents of the outermost boxes whose braces close, in order."""
    boxes: list[tuple[int, int]] = []
    open_starts: list[int | None] = []  # where the content of a box starts, None for other braces
    for token in _BOX_OR_BRACE.finditer(text, _first_box(text)):
        if token.group().endswith("{") and token.group() != "\\{":
            open_starts.append(token.end() if len(token.group()) > 1 else None)
        elif token.group() == "}" and open_starts:
            start = open_starts.pop()
            if start is not None:
                while boxes and boxes[-1][0] > start:  # boxes inside this one
                    boxes.pop()
                boxes.append((start, token.start()))
    return boxes


def _first_box(text: str) -> int:
    r"""The place of the first box, or the end of the text. Braces before it do not matter; ``\\boxed`` is no box."""
    places = [place for command in ("\\boxed", "\\fbox") if (place := text.find(command)) >= 0]
    return len(text[: min(places)].rstrip("\\")) if places else len(text)
