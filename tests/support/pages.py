"""Reading reports back."""

import hashlib
import time
from collections.abc import Callable
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


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Playwright's own waiting evaluates a string, which the policy of our pages forbids."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
