"""The page of a generation, in its file and in a real Chromium."""

from typing import Any

from pipeline.questions.written_page import written_page
from pipeline.reports import page
from tests.support.browser_rows import ATTACKS
from tests.support.pages import until
from tests.support.written import ROWS, make_row

REPORT: dict[str, Any] = {
    **{"num_asked": 3, "num_written": 4, "num_kept": 2, "is_complete": False, "versions": {}},
    "reasons": {"exact duplicate": 1, "not well formed": 1},
    "cells": [{"kind": "new", "topic": "", "level": "1", "num_asked": 3, "num_written": 4, "num_kept": 2}],
    "mean_parts": {"checked": {"written": 0.5, "kept": None}},
    "test_sets": [
        {"name": "gsm8k", "num_problems": 1319, "num_exact_written": 1, "num_near_written": 2}
        | {"num_exact_kept": 0, "num_near_kept": 0}
    ],
    "other_data": [
        {"name": "training data", "num_problems": 2718, "num_exact_written": 0, "num_near_written": 3}
        | {"num_exact_kept": 0, "num_near_kept": 3}
    ],
    "not_compared": {"math": "not here"},
    "record": {"model": {"name": "tiny"}, "settings": {"seed": 0}, "num_too_long": 12},
}


def html(rows: list[dict[str, Any]]) -> str:
    return written_page("title", REPORT, {"seed": 0}, rows)


def ids(shown: Any) -> list[str]:
    return shown.locator("#lines tr th").all_inner_texts()


def wait_for(shown: Any, expected: list[str]) -> None:
    until(lambda: ids(shown) == expected)


def short(*numbers: str) -> list[str]:
    return [f"written-0-00000{number}" for number in numbers]


def test_the_page_says_what_was_kept_and_proves_what_is_not_among_it():
    text = html(ROWS)
    for expected in ("incomplete: 2 of 3 problems", "1319", "not here", "exact duplicate", "50.0%", "0.500"):
        assert expected in text
    assert "training data" in text and "2718" in text and "12 tasks left out: too long" in text
    assert "or with other numbers and names at once" in text
    assert "No problems." in html([])


def test_problems_are_filtered_by_verdict_reason_topic_and_level(open_page):
    shown = open_page(html(ROWS))
    assert shown.locator("#status").inner_text() == "4 of 4 problems"
    assert shown.locator("fieldset legend").all_inner_texts() == ["verdict", "reason", "topic", "level"]
    assert shown.locator("#verdict label").all_inner_texts() == ["kept (2)", "rejected (2)"]
    shown.get_by_label("rejected (2)").check()
    assert ids(shown) == short("1-0", "1-1")
    assert shown.locator("#reason label").all_inner_texts()[-2:] == ["exact duplicate (1)", "not well formed (1)"]
    shown.get_by_label("not well formed (1)").check()
    assert ids(shown) == short("1-1")
    shown.get_by_role("button", name="Reset").click()
    shown.locator("#level").get_by_label("2 (1)").check()
    assert ids(shown) == short("0-1")


def test_search_reads_statements_answers_completions_and_details(open_page):
    shown = open_page(html(ROWS))
    for text, expected in {"pens": ["0-1"], "do not know": ["1-1"], "similar to": ["1-0"], "missing": ["1-1"]}.items():
        shown.get_by_role("searchbox").fill(text)
        wait_for(shown, short(*expected))


def test_a_problem_opens_in_full_with_its_parts(open_page):
    shown = open_page(html(ROWS))
    shown.locator("#lines tr").nth(1).click()
    dialog = shown.get_by_role("dialog", name="written-0-000000-1 · 2 of 4")
    facts = dict(zip(dialog.locator("dt").all_inner_texts(), dialog.locator("dd").all_inner_texts(), strict=True))
    assert facts["checked"] == "1" and facts["novel"] == "0.5" and facts["quality"] == "0.75"
    assert facts["verdict"] == "kept" and facts["seed"] == "7"
    assert dialog.locator("[data-field=answer] mfrac").count() == 1
    dialog.get_by_text("Prompt").click()
    assert dialog.locator("[data-field=prompt]").inner_text() == "user: Write a problem."


def test_scores_sort_by_size(open_page):
    shown = open_page(html(ROWS))
    shown.get_by_role("button", name="quality", exact=True).click()
    assert ids(shown) == short("1-1", "1-0", "0-0", "0-1")


def test_hostile_problems_are_shown_and_do_nothing(open_page):
    names = ("statement", "solution", "answer", "completion", "detail", "topic", "level", "original", "model")
    rows = [
        make_row(f"p{i}", reason=attack, **{name: attack for name in names if name != "statement"}, statement=attack)
        | {"prompt": [{"role": "user", "content": attack}]}
        for i, attack in enumerate(ATTACKS)
    ]
    shown = open_page(html(rows), "#sort=__proto__&row=constructor&reason=%00")
    for name in shown.locator("#head button").all_inner_texts():
        shown.get_by_role("button", name=name, exact=True).click()
    shown.get_by_role("button", name="Reset").click()
    shown.locator("#lines tr").first.click()
    for attack in ATTACKS:
        field = shown.locator("dialog [data-field=statement]")
        assert field.locator("a[href], img, script, svg, iframe, [id]").count() == 0
        shown.get_by_role("button", name="Raw text").click()
        assert field.evaluate("e => e.textContent") == page.visible(attack)
        shown.get_by_role("button", name="Raw text").click()
        shown.keyboard.press("j")
    assert shown.locator("#lines tr").count() == len(ATTACKS)
