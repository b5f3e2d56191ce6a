"""Rows of data sets, read from files one at a time."""

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pipeline.data.arrow_files import ROWS_PER_BATCH
from pipeline.errors import DataError, first_line
from pipeline.fields import ABSENT, as_text, columns_of, lookup, parse_line, stored_features, table_columns
from pipeline.types import Message, Role

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".jsonl")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_MESSAGES_AS_TEXT = re.compile(r"""\s*\[?\s*\{\s*["'](role|content)["']\s*:""")
"""The start of messages that were written as a text: JSON, or Python's own form."""


class Place(NamedTuple):
    """Where a row is, for error messages: ``train.jsonl line 7``."""

    source: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.source} {self.unit} {self.number}"


class Row:
    """One row of a data set. Its fields are read as texts or as chat messages, never as they are."""

    __slots__ = ("_place", "_values")

    def __init__(self, values: Mapping[str, Any], place: Place) -> None:
        self._values, self._place = values, place

    def __contains__(self, name: str) -> bool:
        return lookup(self._values, name) is not ABSENT

    @property
    def place(self) -> str:
        """For error messages: ``train.jsonl line 7``."""
        return str(self._place)

    def names(self) -> list[str]:
        """All fields, those inside structs by their dotted names."""
        return list(_dotted(self._values))

    def text(self, name: str | None) -> str:
        """A field by ``as_text``; empty for the name None. Raises DataError also for text that UTF-8 cannot encode."""
        return self._utf8(as_text(lookup(self._values, name), name, self._place), name) if name else ""

    def first_text(self, name: str) -> str:
        """As ``text``, but of a list the first item."""
        value = lookup(self._values, name)
        return self._utf8(as_text(value[:1] if isinstance(value, list) else value, name, self._place), name)

    def question(self, name: str) -> str:
        """As ``text``, of a problem. Raises DataError also for chat messages that were written as a text."""
        text = self.text(name)
        if _MESSAGES_AS_TEXT.match(text):
            raise DataError(
                f"{self._place}: field {name} must be a question or a list of messages, got messages written as a "
                "text. Store them as a list."
            )
        return text

    def messages(self, name: str) -> tuple[Message, ...] | None:
        """The chat messages of a field that is a list of them, as they are; None for any other field.

        Raises:
            DataError: a message is not a role and a text, or the last one is not the user's.
        """
        value = lookup(self._values, name)
        if not isinstance(value, list) or not any(isinstance(item, dict) for item in value):
            return None
        messages = tuple(self._message(item, name) for item in value)
        if messages[-1]["role"] != "user":
            raise DataError(
                f"{self._place}: the last message of {name} must be the user's, got {messages[-1]['role']}: the policy "
                "answers it. To learn from whole conversations set data.layout=conversations."
            )
        return messages

    def items(self, name: str) -> list[Any]:
        """The items of a field that is a list, as they are; empty if the row lacks it. Raises DataError for others."""
        value = lookup(self._values, name)
        if value is ABSENT or value is None:
            return []
        if not isinstance(value, list):
            raise DataError(f"{self._place}: field {name} must be a list, got {value!r:.80}.")
        return value

    def conversation(self, name: str) -> tuple[Message, ...]:
        """The messages of a field that is a whole conversation: maybe the system's, then the user's and the assistant's
        in turn, the assistant's last. They have ``role`` and ``content``, or ``from`` (human, gpt) and ``value``.

        Raises:
            DataError: it is not such a conversation.
        """
        value = lookup(self._values, name)
        if not isinstance(value, list) or not value:
            got = "an empty list" if value == [] else "none" if value in (None, ABSENT) else type(value).__name__
            raise DataError(f"{self._place}: field {name} must be a list of messages, got {got}.")
        messages = tuple(self._message(_renamed(item), name) for item in value)
        roles = [message["role"] for message in messages]
        spoken = roles[1:] if roles[0] == "system" else roles
        if "assistant" not in spoken:
            raise DataError(f"{self._place}: {name} must have a turn of the assistant to learn, got {_listed(roles)}.")
        if len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2):
            raise DataError(
                f"{self._place}: the roles of {name} must be user and assistant in turn, the assistant last, after at "
                f"most one system message, got {_listed(roles)}."
            )
        for number, message in enumerate(messages, 1):
            if not message["content"].strip():
                raise DataError(f"{self._place}: message {number} of {name} must have a text, got an empty one.")
        return messages

    def _message(self, item: Any, name: str) -> Message:
        keys = {key for key, value in item.items() if value is not None} if isinstance(item, dict) else set()
        if keys != {"role", "content"} or item["role"] not in get_args(Role) or not isinstance(item["content"], str):
            raise DataError(
                f"{self._place}: each message of {name} must have a role ({', '.join(get_args(Role))}) and a text as "
                f"content, and nothing else, got {_described(item)}."
            )
        return {"role": item["role"], "content": self._utf8(item["content"], name)}

    def _utf8(self, text: str, name: str) -> str:
        try:
            if not text.isascii():
                text.encode()
        except UnicodeEncodeError as error:
            surrogate = f"U+{ord(text[error.start]):04X}"
            raise DataError(f"{self._place}: field {name} must be UTF-8, got the half character {surrogate}.") from None
        return text


def _renamed(item: Any) -> Any:
    """A message with the keys of a chat template: ShareGPT's are ``from`` and ``value``."""
    if not isinstance(item, dict) or item.get("from") is None or item.get("role") is not None:
        return item
    rest = {key: value for key, value in item.items() if key not in ("from", "value") and value is not None}
    role = item["from"]
    return {
        "role": _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role,
        "content": item.get("value"),
        **rest,
    }


def _listed(roles: Sequence[str]) -> str:
    return ", ".join(roles[:6]) + (", ..." if len(roles) > 6 else "")


def _dotted(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{inner}" for inner in _dotted(value))
        else:
            yield name


def _described(item: Any) -> str:
    if not isinstance(item, dict):
        return type(item).__name__
    return ", ".join(f"{key}={value if key == 'role' else type(value).__name__}" for key, value in item.items())


def require_library(name: str, purpose: str) -> None:
    """Raises DataError if a library is not installed."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise DataError(
            f"{purpose} needs the {missing} library, which is not installed. Run `pip install {missing}`."
        ) from None


def file_rows(file: Path, names: Sequence[str] | None, start: int = 0, stop: int = sys.maxsize) -> Iterator[Row]:
    """Rows ``start`` to ``stop`` of a file.

    Args:
        names: fields that are needed; None for all. Other columns of parquet are not read.

    Raises:
        DataError: the file cannot be read.
    """
    with _readable(file):
        yield from (_jsonl_rows if file.suffix == ".jsonl" else _parquet_rows)(file, names, start, stop)


def num_rows(file: Path) -> int:
    """Raises DataError if the file cannot be read."""
    with _readable(file):
        if file.suffix == ".jsonl":
            with file.open("rb") as lines:
                return sum(not _is_blank(line) for line in lines)
        import pyarrow.parquet as pq

        return int(pq.read_metadata(file).num_rows)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    require_library("pyarrow", f"reading {file}")
    import pyarrow as pa

    try:
        with file.open("rb") as content:
            if content.read(40).startswith(b"version https://git-lfs"):
                raise DataError(f"{file} holds no data, only where Git LFS keeps it. Run `git lfs pull` there.")
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or first_line(error)}.") from None


def _jsonl_rows(file: Path, names: Sequence[str] | None, start: int, stop: int) -> Iterator[Row]:
    with file.open("rb") as lines:
        numbered = ((number, line) for number, line in enumerate(lines, 1) if not _is_blank(line))
        for number, line in islice(numbered, start, stop):
            place = Place(file.name, "line", number)
            yield Row(parse_line(line, place), place)


def _is_blank(line: bytes) -> bool:
    return not line.strip(b" \t\r\n\xef\xbb\xbf")  # a byte order mark


def _parquet_rows(file: Path, names: Sequence[str] | None, start: int, stop: int) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
        columns = columns_of(names, schema.names)
        first = 0
        for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=columns):
            if first >= stop:
                return
            skipped = max(start - first, 0)
            part = batch.slice(skipped, max(stop - first - skipped, 0))
            yield from table_rows(part, columns, stored_features(schema, file.name), file.name, first + skipped)
            first += batch.num_rows


def table_rows(
    data: "pa.RecordBatch | pa.Table", columns: Sequence[str], features: Mapping[str, Any], source: str, first: int
) -> Iterator[Row]:
    """Rows of Arrow data.

    Args:
        source, first: name of the data set, and the index of the first row in it.
    """
    values = table_columns(data, columns, features, f"{source} rows from {first + 1} on")
    for number, row in enumerate(zip(*values, strict=True), first + 1):
        yield Row(dict(zip(columns, row, strict=True)), Place(source, "row", number))
