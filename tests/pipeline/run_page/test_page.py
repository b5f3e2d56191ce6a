"""The file of a run's page. test_page_in_chromium.py opens it."""

import base64
import gzip
import json
import re
import tomllib

import pytest

from pipeline.run_page import page as run_page_module
from pipeline.run_page.page import run_page
from pipeline.run_page.state import PROBLEM_FIELDS, RunState
from pipeline.runs.ledger import USED, USES
from tests.conftest import ROOT
from tests.pipeline.evaluation.test_browser import Tags
from tests.support.hostile_completions import HOSTILE_COMPLETIONS
from tests.support.run_pages import add_steps, begin_run, ledger_row


def page_of(run_dir, **options) -> str:
    state = RunState(run_dir)
    state.read()
    return run_page(state, "", {}, **options)


def unpacked(html: str, name: str):
    data = re.search(f'<script type="application/gzip" id="{name}">([A-Za-z0-9+/=]*)</script>', html)
    assert data, name
    return json.loads(gzip.decompress(base64.b64decode(data[1])))


def run_with(tmp_path, texts, steps=1):
    rows = [ledger_row(step, "p", ["correct"] * len(texts)) for step in range(1, steps + 1)]
    run_dir = begin_run(tmp_path / "run", [{"problem_id": "p", "question": texts[0], "gold": texts[-1]}])
    add_steps(run_dir, rows, {(step, "p"): texts for step in range(1, steps + 1)})
    return run_dir


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch):
    """Its code is 5 MB: only Chromium needs it."""
    monkeypatch.setattr(run_page_module, "_plotly", lambda: "let Plotly;")
    monkeypatch.setattr(run_page_module, "_packed_plotly", lambda: "")


def test_the_page_needs_nothing_but_itself(tmp_path):
    run_dir = run_with(tmp_path, ["a", "b"])
    html = page_of(run_dir)
    tags = Tags(html).tags
    assert not [attrs for _, attrs in tags if {"src", "href"} & set(attrs)]
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    policy = next(attrs["content"] or "" for _, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and policy.count("'sha256-") == 8 and "connect-src" not in policy
    assert "connect-src 'self'" in page_of(run_dir, is_live=True)


def test_hostile_completions_make_no_tag(tmp_path):
    harmless = page_of(run_with(tmp_path / "harmless", ["x"] * 31))
    hostile = page_of(run_with(tmp_path / "hostile", HOSTILE_COMPLETIONS))
    assert [tag for tag, _ in Tags(hostile).tags] == [tag for tag, _ in Tags(harmless).tags]
    texts = [row["text"] for row in unpacked(hostile, "completions-0")["1"]]
    assert len(texts) == 31 and all(char.isprintable() or char in "\n\t" for char in "".join(texts))


def test_completions_lie_in_parts_the_newest_first(tmp_path, monkeypatch):
    run_dir = run_with(tmp_path, ["x" * 10, "y" * 10], steps=4)
    monkeypatch.setattr(run_page_module, "CHARS_PER_PART", 30)
    monkeypatch.setattr(run_page_module, "MAX_COMPLETIONS", 5)
    html = page_of(run_dir)
    assert unpacked(html, "run")["chunks"] == {"4": 0, "3": 0, "2": 1}
    assert list(unpacked(html, "completions-0")) == ["4", "3"] and list(unpacked(html, "completions-1")) == ["2"]
    assert "completions-0" not in page_of(run_dir, is_live=True).split("<script>")[0]


def test_problems_are_rows_of_the_browser(tmp_path):
    columns = unpacked(page_of(run_with(tmp_path, ["a", "b"])), "rows")
    row = {name: column["values"][column["rows"][0]] for name, column in columns.items()}
    assert tuple(row) == PROBLEM_FIELDS
    assert (row["label"], row["solved"], row["mean"], row["gold"]) == ("partly solved", 2, 0.75, "b")


def test_the_fields_of_a_group_are_those_that_its_script_reads():
    from pipeline.run_page.state import GROUP_FIELDS

    script = (ROOT / "pipeline" / "run_page" / "static" / "groups.js").read_text()
    fields = re.search(r"#FIELDS = \[(.*?)\]", script, re.DOTALL)
    assert fields and tuple(json.loads(f"[{fields[1]}]")) == GROUP_FIELDS


def test_its_script_names_the_uses_of_dropped_groups():
    script = (ROOT / "pipeline" / "run_page" / "static" / "groups.js").read_text()
    dropped = re.search(r"#DROPPED = (\[.*?\]);", script)
    assert dropped and json.loads(dropped[1]) == [use for use in USES if use not in USED]


def test_files_of_pages_are_part_of_the_package():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("pipeline/**/static")}
    assert folders == set(named) and all(patterns == ["static/*"] for patterns in named.values())
