"""Find the final answer in a completion. Linear in its length, whatever the text. docs/verifier.md has the rules."""

import re
from collections import deque

_SECTION_TAG = re.compile(r"<(/?)(answer|reasoning|think|thinking)>", re.IGNORECASE)
_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_WHOLE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(-?[0-9][0-9,.]*|\\?[A-Za-z]+(?![A-Za-z{]))"  # \boxed 9
    r"|\{([^$\n}][^$\n]{0,300}))"  # \boxed{9
)
_HASHES = re.compile(r"#{4,}[ \t]*([^\n]*)")
_PHRASE = re.compile(
    r"\b(?:answers?\s+(?:is|are|would be|should be|must be|comes? (?:out )?to|equals?)\b"
    r"|(?:final\s+)?answers?[\s*_]*[:=]"
    r"|answer\s*\n+"
    r"|(?:antwort|lösung|ergebnis)\s+(?:ist|lautet|beträgt)\b|(?:antwort|lösung|ergebnis)\s*:"
    r"|r[ée]ponse\s+(?:finale\s+)?est\b|r[ée]ponse(?:\s+finale)?\s*:"
    r"|respuesta\s+(?:final\s+)?es\b|respuesta(?:\s+final)?\s*:"
    r"|resposta\s+(?:final\s+)?é\b|resposta(?:\s+final)?\s*:|risposta\s+(?:finale\s+)?è|risposta(?:\s+finale)?\s*:"
    r"|ответ\s*[:—-]|ответ\s+равен)"
    r"|(?:答案(?:是|为|為|：|:)|答えは|答え[:：]|정답은|답은|답[:：])",
    re.IGNORECASE,
)
_ANSWER_LINE = re.compile(r"[\s:=*_>]*(?:-\s)?(?:```[a-z]*\n\s*)?(?:\$\$|\\\[)?\s*")
_ASIDE = re.compile(r"([-−$€£0-9][^,]*),\s+(?!(?:and|or|und|et|y|e|o|oder|ou)\b)[^\W\d_]{3,}")
_CUT = re.compile(
    r"\.(?=\s|$|\*)|[;?](?=\s|$)|(?<=[A-Za-z])!(?=\s|$)|。|\n|\s+—\s"
    r"|,?\s+(?:because|since|as we|which|so that|so the|so we|where|when|but|after|given|and the|and we|and so|due to"
    r"|by the|if the|for the|from the|therefore|thus|hence|not\s)"
    r"|,\s+(?:not|as|so|because|and not)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?<![\w)])[-−]?[$€£]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+|(?=\.[0-9]))"
    r"(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?:(?:/|:(?=[0-9]))[0-9]+)*\s?%?"
    r"|[0-9]+(?:\.[0-9]+)?"
)
_DOLLAR = re.compile(r"(?<!\\)\$")
_FENCE = re.compile(r"```[a-zA-Z]*\n?([^`]*)```")
_MARKED = re.compile(r"\*\*([^*\n]{1,200})\*\*|`([^`\n]{1,200})`|__([^_\n]{1,200})__")
_FORMULA = re.compile(
    r"\$\$([^$]{1,500})\$\$"
    r"|\$([^$\n]{1,300})\$"
    r"|\\\(([^\n]{1,300}?)\\\)"
    r"|\\\[([^\\]{0,5}(?:\\[^\]]|[^\\]){1,500})\\\]"
)
_HEDGE = re.compile(
    r"^(?:not|neither|either|maybe|perhaps|possibly|between|probably|isn't|is not|cannot be|can't be|it is not"
    r"|it's not)\b"
    r"|\b(?:maybe|perhaps|possibly|or maybe|not sure|or possibly|either)\b"
    r"|\?$",
    re.IGNORECASE,
)
_OR = re.compile(r"\s*,?\s+or\s+", re.IGNORECASE)
_CANDIDATE = re.compile(r"[0-9]|^\(?[A-J]\)?$")
_BOLD = re.compile(r"(?<![\w)])\*\*([^*\n]+)\*\*(?![\w(])")
_NAMED = re.compile(r"[A-Za-z_0-9(){}]+\s*(?:=|<|>|\\le|\\ge|≤|≥|\\in)")
_NOT_BEFORE = re.compile(r"\b(?:not|isn't|never|nor)\s+(?:\S+\s+)?$", re.IGNORECASE)
_CHOICE_LINE = re.compile(r"(?:^|\n)\s*\(?([A-J])\)?[.:)]?\s*$")
_MAX_BOXES = 100
_MAX_BOX_GAP = 30
_MAX_HEDGE_CHARS = 500
_BOX_JOINER = re.compile(r"[\s$,;.]*(?:and|or)?[\s$,;]*(?:\\text\{\s*(?:and|or)\s*\})?[\s$]*(?:[a-zA-Z]\s*=\s*)?")
_HEADING = re.compile(r"\s*(?:step|part|solution|explanation|conclusion|final|summary|note|answer)\b.*", re.IGNORECASE)


def extract(completion: str, *, fallback: bool = True) -> str | None:
    """The final answer as the policy wrote it, or None when there is none, or it hedges ("42 or 43", "not 42").

    The last complete ``<answer>`` section; when there is one, nothing else counts. Otherwise, outside the reasoning
    and in this order: ``\\boxed{}`` (several side by side are a list), ``#### n``, "the answer is n" (or "final
    answer: n", also in other languages), the last bold or code span, and, with ``fallback``, the last formula or
    number.
    """
    answer = find_answer(completion, fallback=fallback)
    return None if answer is None or is_hedge(answer) else answer


def find_answer(completion: str, *, fallback: bool = True) -> str | None:
    """As ``extract``, hedges included."""
    outside, section, inside = _sections(completion)  # inside is empty when the reasoning was cut off
    if section is not None:
        return _from_section(section)
    answer = _from_text(outside, fallback=fallback)
    if answer is None and not outside.strip():
        answer = _last_boxes(inside) or _after_hashes(inside) or _after_phrase(inside)
    return answer


def marked_answer(text: str) -> str | None:
    """What stands in the last boxes, or behind ``####``; None without either."""
    return _closed_boxes(text) or _after_hashes(text)


def last_number(text: str) -> str | None:
    """The last number anywhere in the text, with its sign, ``$``, ``%`` or denominator."""
    last = deque(_NUMBER.finditer(text), maxlen=1)
    return last[0].group().strip() if last else None


def is_hedge(answer: str) -> bool:
    """Whether an answer names several candidates, or only what it is not. ``x = 1 or x = 2`` is no hedge."""
    if len(answer) > _MAX_HEDGE_CHARS:
        return False
    if _HEDGE.search(answer):
        return True
    parts = _OR.split(answer)
    is_choice = len(parts) > 1 and all(_CANDIDATE.search(part.strip(" $*")) for part in parts)
    return is_choice and not all(_NAMED.search(part) for part in parts)


# Sections ----------------------------------------------------------------------------------------------


def _sections(text: str) -> tuple[str, str | None, str]:
    """The text outside the reasoning, the last complete answer section (None: there is none), and closed reasoning.

    The chat template may have opened the reasoning, and a length limit may have cut it off. An answer section inside
    the reasoning does not count.
    """
    outside: list[str] = []
    inside: list[str] = []
    section: str | None = None
    unclosed_section: str | None = None
    place, start, inner_start, opened = 0, 0, 0, ""
    for tag in _SECTION_TAG.finditer(text):
        closing, name = tag[1], tag[2].lower().replace("thinking", "think")
        piece = text[place : tag.start()]
        place = tag.end()
        if name == "answer":
            if opened:
                if closing and inner_start:
                    unclosed_section = text[inner_start : tag.start()]
                inner_start = 0 if closing else tag.end()
                inside.append(piece)
            elif not closing:
                outside.append(piece)
                start = tag.end()
            else:
                if start:
                    section = text[start : tag.start()]
                outside.append(piece)
                start = 0
        elif not closing:
            (inside if opened else outside).append(piece)
            opened = opened or name
        elif opened in (name, ""):
            if not opened:  # never opened: all before it was reasoning
                inside += outside
                outside, section, start = [], None, 0
            inside.append(piece)
            opened, unclosed_section = "", None
        else:
            inside.append(piece)
    (inside if opened else outside).append(text[place:])
    if section is None:
        section = unclosed_section  # the reasoning before it was never closed
    return " ".join(outside), section, "" if opened else " ".join(inside)


def _from_section(section: str) -> str | None:
    """An answer section may hold a box, hashes or a phrase of its own."""
    section = section.strip()
    if not section:
        return None
    marked = marked_answer(section)
    if not marked and len(section) < 2000 and not section.startswith("Answer Choice"):
        marked = _after_phrase(section)
    return marked or _tidy(section)


def _from_text(text: str, *, fallback: bool) -> str | None:
    answer = _last_boxes(text) or _after_hashes(text) or _after_phrase(text) or _last_marked(text)
    return answer or (_last_formula_or_number(text) if fallback else None)


def _tidy(answer: str) -> str:
    """Without marks around it and the final full stop."""
    answer = answer.strip().removeprefix("```text").removeprefix("```latex").removeprefix("```")
    answer = answer.strip(" \t\r\n*_`")
    if letter := re.fullmatch(r"\(([A-J])\)\.?", answer):
        return letter[1]
    for _ in range(2):
        if answer.endswith(".") and not answer.endswith("...") and not re.search(r"\b[ap]\.m\.$", answer):
            answer = answer[:-1].rstrip(" *_`")
        for mark in ("$$", "$"):
            if answer.startswith(mark) and answer.endswith(mark) and answer.count("$") == 2 * len(mark):
                answer = answer[len(mark) : -len(mark)].strip()
    return answer


# Boxes -------------------------------------------------------------------------------------------------


def _last_boxes(text: str) -> str | None:
    return _closed_boxes(text) or _open_box(text)


def _closed_boxes(text: str) -> str | None:
    """The content of the last box, or of the last ones when only "and" or a comma stands between them."""
    boxes = _boxes(text)
    if not boxes:
        return None
    answers = [boxes[-1]]  # from the last on
    for box in reversed(boxes[-_MAX_BOXES:-1]):
        gap = text[box[1] + 1 : answers[-1][0] - 7]
        if len(gap) > _MAX_BOX_GAP or not _BOX_JOINER.fullmatch(gap.removesuffix("\\").removesuffix("\\b")):
            break
        answers.append(box)
    contents = [_innermost(text[start:end].strip()) for start, end in reversed(answers)]
    return ", ".join(dict.fromkeys(contents)) or None


def _innermost(content: str) -> str:
    while match := _WHOLE_BOX.fullmatch(content):
        content = match[1].strip()
    return content


def _open_box(text: str) -> str | None:
    r"""The last ``\boxed 9``, or ``\boxed{9`` whose brace never closes."""
    bare = deque(_BARE_BOX.finditer(text), maxlen=1)
    return (bare[0][1] or bare[0][2]).strip().rstrip(".,") or None if bare else None


def _boxes(text: str) -> list[tuple[int, int]]:
    """Where the contents of outermost boxes whose braces close start and end, in order."""
    found: list[tuple[int, int]] = []
    open_starts: list[int | None] = []  # where the content of a box starts, None for other braces
    num_open_boxes = 0
    for token in _BOX_OR_BRACE.finditer(text):
        if token.group().endswith("{") and token.group() != "\\{":
            start = token.end() if len(token.group()) > 1 else None
            open_starts.append(start)
            num_open_boxes += start is not None
        elif token.group() == "}" and open_starts:
            start = open_starts.pop()
            if start is not None:
                num_open_boxes -= 1
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, token.start()))
    return found


# Phrases and marks -------------------------------------------------------------------------------------


def _after_hashes(text: str) -> str | None:
    """The rest of the last line with ``####`` that is no heading."""
    answer = None
    for match in _HASHES.finditer(text):
        line = match[1].strip()
        if line and not line.endswith(":") and not _HEADING.fullmatch(line):
            answer = line
    return _tidy(answer) if answer else None


def _after_phrase(text: str) -> str | None:
    """What follows the last "the answer is", to the end of the sentence; on the next line if nothing follows."""
    last = deque(_PHRASE.finditer(text), maxlen=1)
    if not last:
        return None
    skipped = _ANSWER_LINE.match(text, last[0].end())
    start = skipped.end() if skipped else last[0].end()
    rest = text[start : start + 2000]
    if skipped and ("$$" in skipped[0] or "\\[" in skipped[0]):
        rest = re.split(r"\$\$|\\\]", rest)[0]
        return _tidy(rest.split("\n\n")[0].replace("\n", " ")) or None
    sentence = _tidy(_sentence(rest).lstrip(":"))
    sentence = re.sub(r"^(?:that|indeed|simply|clearly|then|now)\s+", "", sentence)
    sentence = sentence.removeprefix("option ").removeprefix("Option ").strip(" :*")
    if aside := _ASIDE.match(sentence):
        sentence = aside[1]
    return _unbroken(sentence) or None


def _sentence(text: str) -> str:
    """Up to the first mark that ends a sentence outside brackets and formulas."""
    depth, in_formula = 0, False
    has_formulas = len(_DOLLAR.findall(text.partition("\n\n")[0])) % 2 == 0  # else they are currency
    ends = {match.start(): match for match in _CUT.finditer(text)}
    for place, char in enumerate(text):
        if char == "$" and text[place - 1 : place] != "\\":
            in_formula = has_formulas and not in_formula
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(0, depth - 1)
        if place in ends and not in_formula and (char == "\n" or depth == 0):
            return text[:place]
        if text.startswith("\n\n", place):
            return text[:place]
    return text


def _unbroken(sentence: str) -> str:
    """Bold inside a sentence marks the answer: "**42** apples" is "42 apples"."""
    return _BOLD.sub(r"\1", sentence).replace("`", "").strip()


def _last_marked(text: str) -> str | None:
    """The last code block, or bold or code span of the last lines, that looks like an answer."""
    fence = deque(_FENCE.finditer(text), maxlen=1)
    if fence and len(fence[0][1].strip()) <= 200 and not text[fence[0].end() :].strip():
        return _tidy(fence[0][1].strip().split("\n")[-1]) or None
    found = None
    for match in _MARKED.finditer(text, max(0, len(text) - 2000)):
        content = (match[1] or match[2] or match[3]).strip()
        is_short = len(content) <= 60 and not content.endswith(":")
        is_last = not text[match.end() :].strip(" .\n")
        if is_short and (is_last or any(c.isdigit() for c in content) or "\\" in content):
            found = (match.end(), content)
    if found is None or any(c.isdigit() for c in text[found[0] :]):
        return None
    return _tidy(found[1])


def _last_formula_or_number(text: str) -> str | None:
    """The last formula, from its last ``=`` on, or the last number, whichever comes later."""
    formula = deque(_FORMULA.finditer(text), maxlen=1)
    number = deque(_NUMBER.finditer(text), maxlen=1)
    if formula and (not number or number[0].end() <= formula[0].end()):
        content = next(group for group in formula[0].groups() if group)
        value = content.rpartition("=")[2].strip(" .,")
        return None if _negated(text, formula[0].start()) else value or None
    letter = _CHOICE_LINE.search(text[-200:])
    if letter:
        return letter[1]
    if not number or _negated(text, number[0].start()):
        return None
    before = text[max(0, number[0].start() - 60) : number[0].start()]
    if re.search(r"[0-9]\s+or\s+$", before):
        return None
    return number[0].group().strip()


def _negated(text: str, place: int) -> bool:
    return bool(_NOT_BEFORE.search(text[max(0, place - 40) : place]))
