"""Reading reports back."""

import hashlib
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The tags of an HTML file with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def fingerprint(directory: Path) -> dict[str, str]:
    """Digests of all files, by path."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.rglob("*")) if p.is_file()}
