"""The page that all reports share. Whatever a text holds, it stays text."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CheckpointError
from pipeline.reports import page
from tests.support.properties import examples
from tests.support.runs import HOSTILE

ATTACKS = ["</pre>", "</td>", "</p>", "</summary></details>", "</style>", "</title>", "<script>", "<!--", "-->", "]]>"]
ODDITIES = [*"<>&'\"=/\\;#!-", "&lt;", "&#60;", "<img src=x onerror=alert(1)>", "\x00", "\u202e", "\n", "\t", "\ud800"]
pieces = st.sampled_from(ATTACKS + ODDITIES)
hostile = st.one_of(
    st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=12).map("".join), st.text(), st.just(HOSTILE)
)


class Elements(HTMLParser):
    """All tags with their attributes, and all text, of one document."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}",))

    def handle_data(self, data):
        self.text += data


def full_page(text: str) -> str:
    """A page with a text in every place that takes one."""
    sections = {
        f"heading {text}": page.pre(text) + page.note(text),
        "table": page.table(["head", text], [[text, (text, text)]], "totals"),
        "details": page.details(text, page.pre(text)),
        "configuration": page.configuration({f"key {text}": {"a": text}, "list": [{"b": text}]}),
    }
    return page.build(text, page.headline([f"fact {text}"], [(text, text)]), sections)


@examples()
@given(hostile)
def test_no_text_leaves_its_element(text):
    harmless, shown = Elements(full_page("harmless")), Elements(full_page(text))
    assert shown.tags == harmless.tags
    assert shown.text == harmless.text.replace("harmless", page.visible(text))


@examples()
@given(hostile)
def test_a_page_is_utf_8_without_invisible_characters(text):
    html = full_page(text).encode().decode()
    assert all(char.isprintable() or char in "\n\t" for char in html)


@examples()
@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=50))
def test_visible_text_is_left_as_it_is(text):
    assert page.visible(text) == text


def test_a_long_text_is_cut():
    shown = Elements(page.pre("x" * (page.MAX_TEXT_CHARS + 1))).text
    assert shown == "x" * page.MAX_TEXT_CHARS + " […]"


def test_no_script_runs_unless_the_page_names_it():
    assert "script-src" not in page.build("title", "", {})
    policy = re.search(r'content="([^"]*script-src[^"]*)"', page.build("title", "", {}, scripts=["1", "2"]))
    assert policy and policy[1].count("'sha256-") == 2


def test_settings_are_named_as_an_override_would_name_them():
    config = {"grpo": {"beta": 0.0}, "stages": [{"name": "a"}, {"name": "b"}], "levels": ["1", "2"], "empty": {}}
    assert page._flat(config) == [
        ("grpo.beta", 0.0),
        ("stages.0.name", "a"),
        ("stages.1.name", "b"),
        ("levels", ["1", "2"]),
        ("empty", {}),
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.25, "0.2 s"), (119.9, "119.9 s"), (120, "2 min 0 s"), (3599.4, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds, expected):
    assert page.duration(seconds) == expected


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    message = r"output must be writable, got .*: Is a directory\. Do this\."
    with pytest.raises(CheckpointError, match=message), page.writing_to(tmp_path, "Do this."):
        tmp_path.write_text("")
