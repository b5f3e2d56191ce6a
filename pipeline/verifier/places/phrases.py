"""Answers after ``####`` and after phrases such as "the answer is", and the marks around an answer."""

import re
from collections import deque

_HASHES = re.compile(r"#{4,}[ \t]*([^\n]*)")
_HEADING = re.compile(r"\s*(?:step|part|solution|explanation|conclusion|final|summary|note|answer)\b.*", re.IGNORECASE)
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
_DOLLAR = re.compile(r"(?<!\\)\$")
_BOLD = re.compile(r"(?<![\w)])\*\*([^*\n]+)\*\*(?![\w(])")


def after_hashes(text: str) -> str | None:
    """The rest of the last line with ``####`` that is not a heading."""
    answer = None
    for match in _HASHES.finditer(text):
        line = match[1].strip()
        if line and not line.endswith(":") and not _HEADING.fullmatch(line):
            answer = line
    return tidy(answer) if answer else None


def after_phrase(text: str) -> str | None:
    """The text after the last "the answer is", to the end of the sentence; on the next line if nothing follows."""
    last = deque(_PHRASE.finditer(text), maxlen=1)
    if not last:
        return None
    skipped = _ANSWER_LINE.match(text, last[0].end())
    start = skipped.end() if skipped else last[0].end()
    rest = text[start : start + 2000]
    if skipped and ("$$" in skipped[0] or "\\[" in skipped[0]):
        rest = re.split(r"\$\$|\\\]", rest)[0]
        return tidy(rest.split("\n\n")[0].replace("\n", " ")) or None
    sentence = tidy(_sentence(rest).lstrip(":"))
    sentence = re.sub(r"^(?:that|indeed|simply|clearly|then|now)\s+", "", sentence)
    sentence = sentence.removeprefix("option ").removeprefix("Option ").strip(" :*")
    if aside := _ASIDE.match(sentence):
        sentence = aside[1]
    return _without_marks_inside(sentence) or None


def _sentence(text: str) -> str:
    """The text up to the first mark that ends a sentence, outside brackets and formulas."""
    depth, in_formula = 0, False
    has_formulas = len(_DOLLAR.findall(text.partition("\n\n")[0])) % 2 == 0  # otherwise the dollars are currency
    ends = {match.start() for match in _CUT.finditer(text)}
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


def _without_marks_inside(sentence: str) -> str:
    """Bold type inside a sentence marks the answer: "**42** apples" is "42 apples"."""
    return _BOLD.sub(r"\1", sentence).replace("`", "").strip()


def tidy(answer: str) -> str:
    """The answer without the marks around it and its final full stop."""
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
