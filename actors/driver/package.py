"""Lists in advance what ``ray job submit --working-dir DIR`` uploads.

Ray 2.60 (``ray/_private/runtime_env/packaging.py``) takes every file below the directory, tracked by git
or not, except for four names and for what ``.gitignore`` and ``.rayignore`` files in it exclude. It does not read
``.git/info/exclude``, and leaves a tracked file behind if it is ignored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathspec import PathSpec

MAX_PACKAGE_BYTES = 100 * 1024**2
"""Ray's dashboard refuses a larger (compressed) package: DASHBOARD_CLIENT_MAX_SIZE."""
_ALWAYS_EXCLUDED = [".git", ".venv", "venv", "__pycache__"]
_IGNORE_FILES = (".gitignore", ".rayignore")
_NUM_LARGEST = 5


@dataclass(frozen=True)
class PackageListing:
    num_bytes: int
    """Before compression."""
    num_files: int
    largest: list[tuple[str, int]]
    """Path below the root and bytes of the largest files, largest first."""

    @property
    def is_too_large(self) -> bool:
        """True if Ray refuses the package, unless compression makes it small enough."""
        return self.num_bytes > MAX_PACKAGE_BYTES

    def describe(self) -> str:
        text = f"package: {self.num_files} files, {_mib(self.num_bytes)}"
        if not self.is_too_large:
            return text
        largest = ", ".join(f"{path} ({_mib(size)})" for path, size in self.largest)
        return (
            f"{text}: Ray refuses more than {_mib(MAX_PACKAGE_BYTES)} after compression. "
            f"Name large files in .gitignore or .rayignore. The largest: {largest}"
        )


def package_listing(root: Path) -> PackageListing:
    sizes = sorted(((path, (root / path).stat().st_size) for path in packaged_files(root)), key=lambda item: -item[1])
    return PackageListing(sum(size for _, size in sizes), len(sizes), sizes[:_NUM_LARGEST])


def packaged_files(root: Path) -> Iterator[str]:
    """Paths below ``root``, with forward slashes."""
    return _walk(root, root, [(root, _spec(_ALWAYS_EXCLUDED))])


def _walk(root: Path, directory: Path, specs: list[tuple[Path, PathSpec[Any]]]) -> Iterator[str]:
    files = (directory / name for name in _IGNORE_FILES)
    specs = specs + [(directory, _spec(file.read_text().splitlines())) for file in files if file.is_file()]
    for path in sorted(directory.iterdir()):
        if any(spec.match_file(path.relative_to(base).as_posix()) for base, spec in specs):
            continue
        if path.is_dir():
            yield from _walk(root, path, specs)
        elif path.is_file():
            yield path.relative_to(root).as_posix()


def _spec(lines: list[str]) -> PathSpec[Any]:
    return PathSpec.from_lines("gitignore", lines)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 1024**2:.1f} MiB"
