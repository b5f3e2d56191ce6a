"""Writes files so that a reader sees either the old content or the new, never a mixture; and their checksums."""

import hashlib
import json
import os
import secrets
import shutil
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MAX_NAME_BYTES = 200
"""Of a name, so that what is added to it still fits into the 255 bytes of a file's name."""
STALE_AFTER_S = 3600.0
"""No file takes this long to write, so a hidden file that is older was left by a killed process."""
WHOLE_FILE_BYTES = 2**30
"""Files up to this size are read whole for a ``content_digest``."""
NUM_SAMPLED_BLOCKS = 64
SAMPLED_BLOCK_BYTES = 2**20


def hidden_name(path: Path) -> Path:
    """A name beside ``path`` that nobody else uses. Process ids are not enough: containers that share a filesystem
    have the same ones."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def remove_stale(directory: Path) -> None:
    """Delete the hidden files that killed processes left in a directory and its subdirectories, one level deep."""
    for folder in [directory, *filter(Path.is_dir, directory.iterdir())]:
        for path in folder.glob(f".*.{'?' * 16}.tmp"):
            with suppress(OSError):  # its writer has just renamed it
                if time.time() - path.lstat().st_mtime > STALE_AFTER_S:
                    path.unlink()


def safe_name(text: str, signs: str = "_.-") -> str:
    """Letters, digits and these signs of the text, of every script: a part of a file's name.

    A digest stands for other characters that are not ASCII, and for what is too long, so that different texts keep
    different names.
    """
    text = unicodedata.normalize("NFC", text)
    name = "".join(character for character in text if character in signs or unicodedata.category(character)[0] in "LMN")
    is_whole = text.isascii() or name == text.replace(" ", "")
    if is_whole and len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
    return f"{name.encode()[: MAX_NAME_BYTES - 9].decode(errors='ignore')}-{digest}"


def write_parquet(path: Path, rows: Sequence[Any], columns: dict[str, Any]) -> None:
    """Write rows under a hidden name beside ``path``, then rename the file.

    Args:
        rows: dictionaries.
        columns: name -> pyarrow's type.
    """
    import pyarrow as pa

    write_table(path, pa.Table.from_pylist(list(rows), schema=pa.schema(columns.items())))


def write_table(path: Path, table: Any) -> None:
    """Write pyarrow's table as parquet, likewise synced before it gets its name."""
    import pyarrow.parquet as pq

    hidden = hidden_name(path)
    try:
        pq.write_table(table, hidden)
        sync(hidden)
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write and sync a hidden file beside ``path``, then rename it."""
    hidden = hidden_name(path)
    try:
        with hidden.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A hidden directory to fill. When the block ends it is synced and gets its name; an older one is deleted.

    One process at a time: what a killed one left is deleted first.
    """
    hidden, old = (path.with_name(f".{path.name}.{word}") for word in ("partial", "old"))
    for left in (hidden, old):
        shutil.rmtree(left, ignore_errors=True)
    hidden.mkdir(parents=True)
    yield hidden
    for file in (*hidden.rglob("*"), hidden):
        sync(file)
    if path.exists():
        path.rename(old)
    hidden.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or the entries of a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """16 hex digits that change with a file's content.

    Of a file above 1 GiB only the size and 64 blocks of 1 MiB are read, spread evenly from its first byte to its last:
    training changes weights everywhere, and reading tens of GiB would delay every start.
    """
    size = path.stat().st_size
    if size <= WHOLE_FILE_BYTES:
        return sha256(path)[:16]
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for index in range(NUM_SAMPLED_BLOCKS):
            file.seek((size - SAMPLED_BLOCK_BYTES) * index // (NUM_SAMPLED_BLOCKS - 1))
            digest.update(file.read(SAMPLED_BLOCK_BYTES))
    return digest.hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (_dump(value, indent=2) + "\n").encode())


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_atomic(path, "".join(_dump(row) + "\n" for row in rows).encode())


def append_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows. Not atomic: a kill can cut the last line short."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(_dump(row) + "\n" for row in rows))


def _dump(value: Any, indent: int | None = None) -> str:
    """Readable UTF-8. Model text may contain lone surrogates, which UTF-8 cannot encode; they become ``?``."""
    return json.dumps(value, indent=indent, ensure_ascii=False).encode(errors="replace").decode()


def link(path: Path, target: Path) -> None:
    """Make ``path`` a relative symbolic link to ``target``. An existing link is replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = hidden_name(path)
    new.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
    new.replace(path)
