"""Questions about facts and entries of knowledge, as ``prepare_data.py omcq-from-facts`` writes them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pipeline.data.rows import Place
from pipeline.errors import DataError, first_line
from pipeline.fields import parse_line
from pipeline.types import Message, Role

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A question about a fact. docs/data.md describes the file."""

    question_id: str
    entry_id: int
    """Line of the fact in knowledge.jsonl, from 0."""
    subject: str
    relation: str
    relation_label: str
    object: str
    options: tuple[str, ...]
    answer_index: int
    conversations: tuple[Message, ...]
    """The user's question, and the answer."""
    conversations_unseen: tuple[Message, ...]
    """The same in a wording and layout that no question is trained in."""

    def __post_init__(self) -> None:
        if len(set(self.options)) < 2:
            raise ValueError(f"options must be two different texts at least, got {list(self.options)!r:.80}")
        if not 0 <= self.answer_index < len(self.options):
            raise ValueError(f"answer_index must be an index into {len(self.options)} options, got {self.answer_index}")
        if self.options[self.answer_index] != self.object:
            raise ValueError(f"option {self.answer_index} must be the object {self.object!r}, got {self.options}")
        for name in ("conversations", "conversations_unseen"):
            roles = [message["role"] for message in getattr(self, name)]
            if roles[-2:] != ["user", "assistant"]:
                raise ValueError(f"{name} must end with the user's question and an answer, got roles {roles}")


@dataclass(frozen=True, slots=True)
class KnowledgeEntry:
    """A fact as a sentence."""

    id: int
    """Its line in the file, from 0."""
    text: str
    subject: str
    relation: str
    object: str
    template: str
    """``[X] is located in [Y].``"""

    def text_with(self, object: str) -> str:
        """The sentence with another object."""
        return fill(self.template, self.subject, object)


def fill(template: str, subject: str, object: str) -> str:
    """A template with its gaps filled. The subject may contain ``[Y]``."""
    return object.join(part.replace("[X]", subject) for part in template.split("[Y]"))


def read_questions(path: Path) -> list[ChoiceQuestion]:
    """Raises DataError if the file cannot be read or a row is not a question about a fact."""
    return list(_records(path, _question))


def read_knowledge(path: Path) -> list[KnowledgeEntry]:
    """Raises DataError if the file cannot be read, a row is not an entry, or an id is not its line."""
    entries = list(_records(path, _entry))
    for line, entry in enumerate(entries):
        if entry.id != line:
            raise DataError(f"{path}: entry {line + 1} must have id {line}, got {entry.id}: ids are lines, from 0.")
    return entries


def has_objects(path: Path) -> bool:
    """False for a file of knowledge of bare sentences, as its first row shows."""
    return "object" in next(_records(path, lambda row: row), {})


def read_texts(path: Path) -> list[str]:
    """The sentences of a file of knowledge, whose rows need no more than ``text``. Raises DataError as the others."""
    return list(_records(path, lambda row: _text(row, "text")))


def _records(path: Path, parse: Callable[[Mapping[str, Any]], Record]) -> Iterator[Record]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                place = Place(path.name, "line", number)
                row = parse_line(line, place)
                try:
                    yield parse(row)
                except ValueError as error:
                    raise DataError(f"{place}: {first_line(error)}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _question(row: Mapping[str, Any]) -> ChoiceQuestion:
    texts = {name: _text(row, name) for name in ("question_id", "subject", "relation", "relation_label", "object")}
    options = row.get("options")
    if not isinstance(options, list) or not all(isinstance(option, str) and option for option in options):
        raise ValueError(f"options must be a list of texts, got {options!r:.80}")
    return ChoiceQuestion(
        **texts,
        entry_id=_index(row, "entry_id"),
        options=tuple(options),
        answer_index=_index(row, "answer_index"),
        conversations=_messages(row, "conversations"),
        conversations_unseen=_messages(row, "conversations_unseen"),
    )


def _entry(row: Mapping[str, Any]) -> KnowledgeEntry:
    texts = {name: _text(row, name) for name in ("text", "subject", "relation", "object", "template")}
    return KnowledgeEntry(id=_index(row, "id"), **texts)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text, got {value!r:.80}")
    return value


def _index(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    text = str(value)
    if isinstance(value, bool | str) or not text.isdecimal():
        raise ValueError(f"{name} must be a whole number from 0, got {value!r:.80}")
    return int(text)


def _messages(row: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    messages = row.get(name)
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise ValueError(f"{name} must be a list of messages, got {messages!r:.80}")
    return tuple(messages)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"role", "content"}
        and value["role"] in get_args(Role)
        and isinstance(value["content"], str)
        and bool(value["content"].strip())
    )
