"""Entries of knowledge from plain sentences: text files with a sentence a line, or JSONL with ``text``."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pipeline.data.omcq.convert import Rejected, parsed
from pipeline.data.omcq.output import check_free
from pipeline.errors import ConfigError, DataError
from pipeline.files import write_jsonl


@dataclass
class Sentences:
    """Different sentences, in order."""

    texts: list[str] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""


def prepare_knowledge(sources: Sequence[Path], output: Path, max_samples: int | None, *, force: bool) -> Sentences:
    """Write ``{"id", "text"}`` rows.

    Raises:
        ConfigError: the output is not a .jsonl file, or a source.
        DataError: a source cannot be read, holds no sentence, or the output cannot be written.
    """
    if output.suffix != ".jsonl" or output.resolve() in {path.resolve() for path in sources}:
        raise ConfigError(f"--output must be a .jsonl file that is no source, got {output}.")
    check_free([output], force=force)
    found = Sentences()
    texts = _texts(sources, found.rejected)
    found.texts = list(islice(texts, max_samples))
    if not found.texts:
        raise DataError(f"the sources must have sentences, got none, and {found.rejected.total():,} rejected rows.")
    try:
        write_jsonl(output, [{"id": line, "text": text} for line, text in enumerate(found.texts)])
    except OSError as error:
        raise DataError(f"output {output} cannot be written: {error.strerror}. Change --output.") from None
    return found


def _texts(sources: Sequence[Path], rejected: Counter[str]) -> Iterator[str]:
    """Each sentence once. Other rows are counted."""
    known: set[str] = set()
    for path in sources:
        for line in _lines(path):
            try:
                text = _sentence(line, is_json=path.suffix == ".jsonl")
                if text in known:
                    raise Rejected("duplicate")
            except Rejected as error:
                rejected[error.reason] += 1
                continue
            known.add(text)
            yield text


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise DataError(f"source {path} cannot be read: {error.strerror}.") from None


def _sentence(line: bytes, *, is_json: bool) -> str:
    if not line.strip():
        raise Rejected("empty")
    try:
        row = parsed(line) if is_json else {"text": line.decode()}
    except UnicodeDecodeError:
        raise Rejected("not UTF-8") from None
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise Rejected("text is not a text")
    if not text.strip():
        raise Rejected("empty")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise Rejected("half a character")
    return text.strip()
