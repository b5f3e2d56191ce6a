"""Reads rows out of files of any size, in parts that can be converted apart from each other, each in bounded memory."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa

from pipeline.data.arrow_files import ROWS_PER_BATCH
from pipeline.data.omcq.convert import ConvertSettings, Rejected, conversation
from pipeline.errors import DataError

PART_BYTES = 8 * 2**20
MAX_ROW_BYTES = 2**20
"""A longer row is rejected without being read into memory."""
EXCERPT_BYTES = 400
_PIECE_BYTES = 2**16
_ITEM = json.JSONDecoder()
_CUT_OFF = Rejected("cut off at the end of the file")
_LOST = Rejected("the rest of the array cannot be read")
_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
RESULTS = pa.schema(
    {"source": pa.int32(), "text": pa.binary(), "reason": pa.string(), "detail": pa.string(), "excerpt": pa.binary()}
)
"""A line of the output, or a reason; neither of both for a blank line."""


class Part(NamedTuple):
    """A part of a file: the lines that begin in a range of bytes. An archive and an array are one part."""

    source: int
    """Index of the file among all sources."""
    path: str
    start: int
    stop: int


class RawRow(NamedTuple):
    """A row as it is in the file, or the reason why it cannot be had."""

    line: bytes
    rejected: Rejected | None = None


def file_parts(sources: Sequence[Path], part_bytes: int = PART_BYTES) -> list[Part]:
    """The parts of all files, in order.

    Raises:
        DataError: a source is not a file that can be read, or has another suffix.
    """
    parts = []
    for index, path in enumerate(sources):
        if not path.name.endswith(_SUFFIXES):
            raise DataError(f"source {path} must be a file {', '.join(_SUFFIXES)}, got {path.suffix or 'no suffix'}.")
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
        except OSError as error:
            raise DataError(f"source {path} cannot be read: {error.strerror}.") from None
        step = part_bytes if path.suffix == ".jsonl" else max(size, 1)
        parts += [Part(index, str(path), start, min(start + step, size)) for start in range(0, size, step)]
    return parts


def converted(part: Part, settings: ConvertSettings) -> Iterator[pa.RecordBatch]:
    """A result for every row of a part, with the columns of ``RESULTS``."""
    results = (_result(part.source, row, settings) for row in part_rows(part))
    while chunk := list(islice(results, ROWS_PER_BATCH)):
        columns = zip(*chunk, strict=True)
        yield pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, RESULTS, strict=True)], schema=RESULTS)


def _result(
    source: int, row: RawRow, settings: ConvertSettings
) -> tuple[int, bytes | None, str | None, str | None, bytes | None]:
    if row.rejected is None and not row.line.strip():
        return source, None, None, None, None
    try:
        if row.rejected:
            raise row.rejected
        return source, conversation(row.line, settings), None, None, None
    except Rejected as rejected:
        detail = rejected.detail.encode(errors="backslashreplace").decode()
        return source, None, rejected.reason, detail, row.line[:EXCERPT_BYTES]


def part_rows(part: Part) -> Iterator[RawRow]:
    """The rows of a part. What cannot be read is one row."""
    with Path(part.path).open("rb") as raw:
        if not part.path.endswith(".gz"):
            yield from _rows(raw, part)
            return
        with gzip.open(raw) as file:
            try:
                yield from _rows(file, part)
            except (EOFError, OSError, zlib.error) as error:
                yield RawRow(b"", Rejected("the rest of the archive cannot be read", str(error)[:80]))


def _rows(file: "IO[bytes] | gzip.GzipFile", part: Part) -> Iterator[RawRow]:
    whole = part.path.removesuffix(".gz")
    if whole.endswith(".json") and file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        file.seek(0)
        return _ArrayRows(file).rows()
    return _line_rows(file, part.start, None if part.path.endswith(".gz") else part.stop)


def _line_rows(file: "IO[bytes] | gzip.GzipFile", start: int, stop: int | None) -> Iterator[RawRow]:
    """The lines that begin from ``start`` on and before ``stop``."""
    file.seek(max(start - 1, 0))
    if start:
        _skip_line(file)
    while (stop is None or file.tell() < stop) and (line := file.readline(MAX_ROW_BYTES + 1)):
        if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            _skip_line(file)
            yield RawRow(line, Rejected("the row is too long", f"over {MAX_ROW_BYTES} bytes"))
        elif line.endswith(b"\n"):
            yield RawRow(line.removeprefix(b"\xef\xbb\xbf"))
        else:
            yield _last_row(line.removeprefix(b"\xef\xbb\xbf"))


def _skip_line(file: "IO[bytes] | gzip.GzipFile") -> None:
    while (piece := file.readline(MAX_ROW_BYTES)) and not piece.endswith(b"\n"):
        pass


def _last_row(line: bytes) -> RawRow:
    """The last line of a file without a newline at its end: maybe half a row."""
    try:
        json.loads(line)
    except ValueError:
        return RawRow(line, _CUT_OFF) if line.strip() else RawRow(line)
    except RecursionError:  # the row's own check names it
        return RawRow(line)
    return RawRow(line)


class _ArrayRows:
    """The items of a JSON array, one at a time.

    Where an item is broken the next one is found by its indentation. If all are on one line, the rest is lost.
    """

    def __init__(self, file: "IO[bytes] | gzip.GzipFile") -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._buffer, self._at, self._ended = "", 0, False

    def rows(self) -> Iterator[RawRow]:
        indent = self._space_after("[") or ""
        while not self._next_is("]"):
            end, rejected = self._item(indent)
            yield RawRow(self._taken(end), rejected)
            if rejected and rejected.reason != "not JSON":
                return
            if rejected is None and (after := self._space_after(",")) is None:
                break
            indent = indent if rejected else after or ""
        if not self._next_is("]"):
            yield RawRow(b"", _CUT_OFF) if self._is_at_end() else RawRow(self._taken(None), _LOST)
            return
        self._at += 1
        self._skip_space()
        if not self._is_at_end():
            yield RawRow(self._taken(None), _LOST)

    def _item(self, indent: str) -> tuple[int, Rejected | None]:
        """The end of an item; of a broken one the start of the next and what is wrong, or the end of the text."""
        while True:
            try:
                _, end = _ITEM.raw_decode(self._buffer, self._at)
                if end < len(self._buffer) or self._ended:
                    return end, None
            except (ValueError, RecursionError):
                following = self._buffer.find(f"{indent}{{", self._at + 1) if "\n" in indent else -1
                if following >= 0:
                    return following + len(indent), Rejected("not JSON", "an item of the array")
                if self._ended or len(self._buffer) - self._at > MAX_ROW_BYTES:
                    return len(self._buffer), _CUT_OFF if self._ended else _LOST
            self._read()

    def _taken(self, end: int | None) -> bytes:
        start, self._at = self._at, len(self._buffer) if end is None else end
        return self._buffer[start : self._at].encode(errors="surrogateescape")

    def _space_after(self, sign: str) -> str | None:
        """Go past white space, a sign, and the white space after it, which is returned. None if there is no sign."""
        self._skip_space()
        if not self._next_is(sign):
            return None
        self._at += len(sign)
        return self._skip_space()

    def _next_is(self, sign: str) -> bool:
        return self._buffer.startswith(sign, self._at)

    def _is_at_end(self) -> bool:
        return self._ended and self._at >= len(self._buffer)

    def _skip_space(self) -> str:
        space = ""
        while True:
            sign = _NOT_SPACE.search(self._buffer, self._at)
            found = self._buffer[self._at : sign.start() if sign else None]
            space += found
            self._at += len(found)
            if self._at < len(self._buffer) or self._ended:
                return space
            self._read()

    def _read(self) -> None:
        """Forget what was read, and read on."""
        piece = self._file.read(_PIECE_BYTES)
        self._ended = not piece
        self._buffer, self._at = self._buffer[self._at :] + self._decoder.decode(piece, self._ended), 0
