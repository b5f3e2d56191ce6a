"""Object multiple-choice rows to conversations. A row that cannot be used is rejected with a reason, never repaired."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.data.omcq.facts import normal
from pipeline.data.omcq.wordings import letter, lettered
from pipeline.types import Message

REQUEST = "请选择正确答案。"
_MARK = re.compile(r"(?:^\s*|(?P<separator>\s*[,，;；\n]\s*))(?P<letter>[A-Z])\s?[:：]")
_ANSWER = re.compile(r"([A-Z])\s?[:：](.*)", re.DOTALL)
_BAD_CHARACTERS = {
    "half a character": re.compile("[\ud800-\udfff]"),
    "control character": re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]"),
    "replacement character": re.compile("\ufffd"),
}


@dataclass(frozen=True)
class ConvertSettings:
    """How a row becomes a conversation."""

    request: str = REQUEST
    """Last line of the user's message; empty for none."""
    answer: Literal["text", "letter", "option"] = "text"
    """The assistant's answer: ``Germany``, ``A`` or ``A: Germany``."""
    answer_lead: str = ""
    """Put before the answer. A space gives it the tokens that it has inside a sentence."""
    max_chars: int = 20_000
    """Longest question, options or answer."""


class Rejected(Exception):
    """A row that is not converted: a reason to count, and details."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Choice(NamedTuple):
    """A checked row."""

    question: str
    options: tuple[str, ...]
    answer_index: int


def conversation(line: bytes, settings: ConvertSettings) -> bytes:
    """A row of JSON as a line of the output. Raises Rejected."""
    choice = read_choice(parsed(line), settings.max_chars)
    messages = _messages(choice, settings)
    return json.dumps({"conversations": messages}, ensure_ascii=False).encode() + b"\n"


def parsed(line: bytes) -> Any:
    """A JSON value in which no object has a key twice. Raises Rejected."""
    try:
        return _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise Rejected("not UTF-8", f"byte 0x{line[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        raise Rejected("not JSON", f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise Rejected("nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise Rejected("not JSON", str(error)[:80]) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Rejected("duplicate key", next(key for key in keys if keys.count(key) > 1))
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_choice(row: Any, max_chars: int) -> Choice:
    """Question, options and answer of a row. Raises Rejected."""
    target = _target(row)
    question, options, answer = (_text(target, name, max_chars) for name in ("question", "options", "correct_answer"))
    texts = read_options(options)
    return Choice(question, texts, answer_index(answer, texts))


def _target(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise Rejected("not an object", type(row).__name__)
    if "target" not in row:
        raise Rejected("no target")
    target = row["target"]
    if not isinstance(target, list):
        raise Rejected("target is not a list", type(target).__name__)
    if not target:
        raise Rejected("target is empty")
    if not isinstance(target[0], dict):
        raise Rejected("target[0] is not an object", type(target[0]).__name__)
    return target[0]


def _text(target: dict[str, Any], name: str, max_chars: int) -> str:
    text = target.get(name)
    if text is None:
        raise Rejected(f"no {name}")
    if not isinstance(text, str):
        raise Rejected(f"{name} is not a text", type(text).__name__)
    for what, pattern in _BAD_CHARACTERS.items():
        if found := pattern.search(text):
            raise Rejected(f"{name} has a {what}".replace("a half a", "half a"), f"U+{ord(found[0]):04X}")
    if not _is_visible(text):
        raise Rejected(f"{name} is empty")
    if len(text) > max_chars:
        raise Rejected(f"{name} is too long", f"{len(text)} characters")
    return text.strip()


def _is_visible(text: str) -> bool:
    return any(sign.isprintable() and not sign.isspace() for sign in text)


def read_options(text: str) -> tuple[str, ...]:
    """The texts of ``A:Germany,B:France``, which may hold commas and colons themselves.

    What looks like the start of an option must be one: the letters must be A, B, C and so on, and separated alike.
    Otherwise nobody can tell where an option ends. Raises Rejected.
    """
    marks = list(_MARK.finditer(text))
    letters = "".join(mark["letter"] for mark in marks)
    if not marks or marks[0].start() or letters[0] != "A":
        raise Rejected("options do not start with A", text[:40])
    if len(set(letters)) < len(letters):
        raise Rejected("an option's letter is repeated", letters)
    if letters != "".join(map(letter, range(len(letters)))):
        raise Rejected("letters of options are out of order", letters)
    if len(letters) == 1:
        raise Rejected("a single option")
    separators = {mark["separator"] for mark in marks[1:]}
    ends = [mark.start() for mark in marks[1:]]
    options = tuple(_one_line(text[m.end() : end]) for m, end in zip(marks, [*ends, len(text)], strict=True))
    if len(separators) > 1 or options[-1].endswith((",", "，", ";", "；")):
        raise Rejected("options are ambiguous", f"separators {sorted(separators)}")
    if not all(map(_is_visible, options)):
        raise Rejected("an option is empty")
    if len(set(map(_key, options))) < len(options):
        raise Rejected("two options are equal")
    return options


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _key(text: str) -> str:
    """Equal for texts that look alike."""
    text = normal(text)
    return text if text.isprintable() else "".join(sign for sign in text if sign.isprintable())


def answer_index(answer: str, options: Sequence[str]) -> int:
    """The option that ``A``, ``A:Germany`` or ``Germany`` means. Raises Rejected."""
    keys = [_key(option) for option in options]
    found = {index for index, key in enumerate(keys) if key == _key(answer)}
    if len(answer) == 1 and "A" <= answer <= letter(len(options) - 1):
        found.add(ord(answer) - ord("A"))
    if (named := _ANSWER.fullmatch(answer)) and not found:
        index = ord(named[1]) - ord("A")
        if index < len(options) and keys[index] != _key(named[2]):
            raise Rejected("correct_answer's letter and text disagree", answer[:80])
        found.update({index} if index < len(options) else ())
    if len(found) > 1:
        raise Rejected("correct_answer is ambiguous", answer[:80])
    if not found:
        is_letter = len(answer) == 1 and answer.isascii() and answer.isalpha()
        reason = "correct_answer is a letter without an option" if is_letter else "correct_answer is not an option"
        raise Rejected(reason, answer[:80])
    return found.pop()


def _messages(choice: Choice, settings: ConvertSettings) -> list[Message]:
    index = choice.answer_index
    text = choice.options[index]
    answer = {"text": text, "letter": letter(index), "option": f"{letter(index)}: {text}"}[settings.answer]
    asked = "\n".join(part for part in (choice.question, lettered(choice.options), settings.request) if part)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": settings.answer_lead + answer}]
