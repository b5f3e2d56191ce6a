"""The end of a file that another process writes."""

import os
from pathlib import Path


class Tail:
    """New whole lines of a growing file, which may not exist yet, or be replaced by a shorter one.

    Args:
        skip_existing: lines that are there now are not given.
    """

    def __init__(self, path: Path, *, skip_existing: bool = False) -> None:
        self._path = path
        self._inode = self._offset = 0
        if skip_existing:
            self.poll()

    def poll(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            return []
        self._offset += len(whole) + bool(whole)
        return whole.split(b"\n") if whole else []
