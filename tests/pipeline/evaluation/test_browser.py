"""The file of the browser over completions. test_browser_in_chromium.py opens it."""

import base64
import gzip
import hashlib
import json
import math
import random
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.browser import FIELDS, browser_page
from pipeline.reports import page
from tests.conftest import ROOT
from tests.support.browser_rows import ATTACKS, ROWS, make_row
from tests.support.properties import examples

STATIC = ROOT / "pipeline" / "evaluation" / "static"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.is_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.is_script = tag == "script"
        self.scripts += [""] * self.is_script

    def handle_endtag(self, tag: str) -> None:
        self.is_script = False

    def handle_data(self, data: str) -> None:
        if self.is_script:
            self.scripts[-1] += data


def unpacked(html: str) -> list[dict[str, Any]]:
    rows = re.search(r'<script type="application/gzip" id="rows">([A-Za-z0-9+/=]*)</script>', html)
    assert rows
    columns = json.loads(gzip.decompress(base64.b64decode(rows[1])))
    count = len(columns["outcome"]["rows"])
    return [{name: c["values"][c["rows"][i]] for name, c in columns.items()} for i in range(count)]


def test_the_page_needs_nothing_but_itself():
    html = Tags(browser_page("A & B", page.headline(["fact"], [("cards", 1)]), {"Section": "<p>text</p>"}, ROWS))
    assert not [attrs for _, attrs in html.tags if {"src", "href"} & set(attrs)]
    assert not [name for _, attrs in html.tags for name in attrs if name.startswith("on")]
    assert [tag for tag, _ in html.tags].count("noscript") == 1
    styles = page.CSS + "".join(path.read_text() for path in STATIC.glob("*.css"))
    assert set(re.findall(r'url\("?(.{4})', styles)) == {"data", "%23a"}  # %23a is a part of its own picture


def test_only_the_scripts_of_the_page_may_run():
    html = Tags(browser_page("title", "", {}, ROWS))
    policy = next(attrs["content"] for _, attrs in html.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    digests = [hashlib.sha256(script.encode()).digest() for script in html.scripts[1:]]  # the first is the rows
    assert len(digests) == 5
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    assert policy == f"{page.CSP}; script-src {allowed}"


def test_a_page_without_rows_has_no_script():
    html = browser_page("title", "", {}, [])
    assert "<script" not in html and "No completions." in html


def test_temml_is_the_file_that_was_published():
    digest = hashlib.sha256((STATIC / "temml.min.js").read_bytes()).hexdigest()
    assert digest in (STATIC / "README.md").read_text()
    assert "MIT License" in (STATIC / "TEMML_LICENSE").read_text()


def test_rows_come_back_as_they_were():
    assert unpacked(browser_page("title", "", {}, ROWS)) == ROWS


def test_invisible_characters_and_values_that_json_lacks_are_spelled_out():
    row = {"outcome": "correct", "completion": "a\u202e\ud800\x00\r\n\tb é", "seconds": float("nan"), "level": ["x"]}
    (back,) = unpacked(browser_page("title", "", {}, [row]))
    assert back == dict.fromkeys(FIELDS) | {
        **{"outcome": "correct", "completion": "a\\u202e\\ud800\\x00\\r\n\tb é", "seconds": None, "level": "['x']"}
    }


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_makes_no_tag(attack):
    harmless = Tags(browser_page("title", "", {}, [make_row()])).tags
    hostile = browser_page("title", "", {}, [make_row(**dict.fromkeys(FIELDS, attack))])
    assert [tag for tag, _ in Tags(hostile).tags] == [tag for tag, _ in harmless]


cells = st.one_of(st.none(), st.booleans(), st.integers(0, 99), st.floats(), st.text(max_size=9))
rows_of_a_page = st.lists(st.dictionaries(st.sampled_from(FIELDS), cells), min_size=1, max_size=5)


@examples()
@given(rows_of_a_page)
def test_any_rows_come_back_with_texts_made_visible(rows):
    def expected(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return page.visible(value) if isinstance(value, str) else value

    html = browser_page("title", "", {}, rows)
    assert unpacked(html) == [{field: expected(row.get(field)) for field in FIELDS} for row in rows]


def test_equal_texts_are_kept_once():
    noise = random.Random(0).randbytes(20_000).hex()
    sizes = [len(browser_page("t", "", {}, [make_row(sample=i, prompt=noise) for i in range(n)])) for n in (1, 8)]
    assert sizes[1] - sizes[0] < 1000
