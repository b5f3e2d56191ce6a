"""Writes files so that a reader sees either the old content or the new, never a mixture; and their checksums."""

import hashlib
import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_NAME_BYTES = 200
"""Of a name, so that what is added to it still fits into the 255 bytes of a file's name."""


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


def write_atomic(path: Path, data: bytes) -> None:
    """Write a hidden file beside ``path``, then rename it."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_bytes(data)
    os.replace(hidden, path)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    new = path.with_name(f".{path.name}.{os.getpid()}.link")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
    new.replace(path)
