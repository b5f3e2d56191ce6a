"""Answers after ``####`` and after phrases such as "the answer is", and the marks around an answer."""

import re
from collections import deque

_HASHES = re.compile(r"#{4,}[ \t]*([^\n]*)")
_HEADING = re.compile(r"\s*(?:step|part|solution|explanation|conclusion|final|summary|note|answer)\b.*", re.IGNORECASE)
ANNOUNCED = {
    "English": (
        r"\b(?<!wrong )(?<!incorrect )(?<!false )answers?",
        r"(?:is|are|would be|should be|must be|comes? (?:out )?to|equals?)\b",
    ),
    "German": (r"\b(?:antwort|lösung|ergebnis)", r"(?:ist|lautet|beträgt)\b"),
    "French": (r"\br[ée]ponse(?:\s+finale)?", r"est\b"),
    "Spanish": (r"\brespuesta(?:\s+final)?", r"es\b"),
    "Portuguese": (r"\bresposta(?:\s+final)?", r"é\b"),
    "Italian": (r"\brisposta(?:\s+finale)?", r"è\b"),
    "Russian": (r"\bответ", r"равен\b"),
    "Chinese": (r"(?:答案|正[确確][选選][项項])", r"(?:[应應]?[为為]|是|选|選|等[于於])"),
    "Japanese": (r"(?:答え|解答|正解)", r"は"),
    "Korean": (r"정?답", r"은"),
}
"""Nouns that announce an answer, and the verbs after them. A noun without a verb needs a mark such as a colon."""
_COLON = r"(?:[:：=＝→⇒]|[-=]>)"
_PHRASE = re.compile(
    "|".join(rf"{noun}[\s*_]*(?:{verbs}|{_COLON}|—+|[–-](?=\s))" for noun, verbs in ANNOUNCED.values())
    + r"|\banswer\s*\n+"
    + r"|\b(?<!wrong )(?<!incorrect )(?:option|choice) (?:is\b(?=\W{0,4}(?-i:[A-J])(?![\w']))"
    + r"|(?=\W{0,4}(?-i:[A-J])\W{0,4}(?:is (?:the )?(?:correct|right)\b[^\n]{0,20})?\s*$))"
    + r"|(?:故|应|應|因此|所以|(?<!\w))[选選][择擇项項]?(?=[^\w\n]*[A-J](?![a-zA-Z]))",
    re.IGNORECASE,
)
_STEMS = (
    "answer", "antwort", "lösung", "ergebnis", "ponse", "respuesta", "resposta", "risposta", "ответ", "答", "正", "답",
    "选", "選", "option ", "choice ",
)  # fmt: skip
"""One of these is in every phrase, at most three characters after its start. Looking for them first saves time."""
_ANSWER_LINE = re.compile(rf"(?:[\s*_>]|{_COLON})*(?:——+\s*|[—–-]\s+)?[*_]*(?:```[a-z]*\n\s*)?(?:\$\$|\\\[)?\s*")
_OPENING, _CLOSING = '「『“„«‘《"', '」』”»’》"'
_QUOTED = re.compile(
    rf"[*_]*[{_OPENING}]([^{_OPENING}{_CLOSING}\n]+)[{_CLOSING}](?![^\n]*(?:[0-9{_OPENING}]|\bor\b|或))"
)
_COPULA = re.compile(r"\s*(?:です|である|になります|となります|입니다|이다)$")
_ASIDE = re.compile(r"([-−$€£0-9][^,，]*)(?:,\s+|，\s*(?![和或]))(?!(?:and|or|und|et|y|e|o|oder|ou)\b)[^\W\d_]{3,}")
_CUT = re.compile(
    r"\.(?=\s|$|\*)|[;?](?=\s|$)|(?<=[A-Za-z])!(?=\s|$)|。|\n|\s+—\s"
    r"|,?\s+(?:because|since|as we|which|so that|so the|so we|where|when|but|after|given|and the|and we|and so|due to"
    r"|by the|if the|for the|from the|therefore|thus|hence|not\s|i\.e\.|namely\b|is (?:the )?(?:correct|right)\b)"
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
    lower = text.lower()
    stems = [place for stem in _STEMS if (place := lower.find(stem)) >= 0]
    first = min(stems, default=len(text)) if len(lower) == len(text) else 0
    last = deque(_PHRASE.finditer(text, max(0, first - 3)), maxlen=1)
    if not last:
        return None
    skipped = _ANSWER_LINE.match(text, last[0].end())
    start = skipped.end() if skipped else last[0].end()
    rest = text[start : start + 2000]
    if skipped and ("$$" in skipped[0] or "\\[" in skipped[0]):
        rest = re.split(r"\$\$|\\\]", rest)[0]
        return tidy(rest.split("\n\n")[0].replace("\n", " ")) or None
    sentence = _COPULA.sub("", tidy(_sentence(rest)))
    if quoted := _QUOTED.match(sentence):
        return tidy(quoted[1]) or None
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
