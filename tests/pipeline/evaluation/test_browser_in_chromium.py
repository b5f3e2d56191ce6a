"""The browser over completions in a real Chromium."""

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.evaluation.browser import FIELDS, browser_page
from pipeline.reports import page
from pipeline.runs.records import read_jsonl
from tests.conftest import DATA
from tests.support.browser_rows import ATTACKS, ROWS, make_row
from tests.support.pages import until

COMPLETIONS = DATA / "smollm2_completions.jsonl"


@pytest.fixture
def show(open_page) -> Callable[..., Any]:
    """Opens the page of some rows from a file."""

    def shown(rows: list[dict[str, Any]], address: str = "") -> Any:
        return open_page(browser_page("title", "", {}, rows), address)

    return shown


def problems(shown: Any) -> list[str]:
    return shown.locator("#lines tr th").all_inner_texts()


def wait_for_problems(shown: Any, expected: list[str]) -> None:
    until(lambda: problems(shown) == expected)


def test_filters_choose_rows_and_count_them(show):
    shown = show(ROWS)
    assert shown.locator("fieldset legend").all_inner_texts() == ["outcome", "level", "type", "dataset"]  # one model
    assert shown.locator("#outcome label").all_inner_texts() == ["correct (2)", "incorrect (1)", "unparsed (1)"]
    shown.get_by_label("incorrect (1)").check()
    shown.get_by_label("unparsed (1)").check()
    assert problems(shown) == ["p1", "p2"] and shown.locator("#status").inner_text() == "2 of 4 completions"
    assert shown.locator("#level label").all_inner_texts() == ["2 (0)", "9 (1)", "10 (0)", "– (1)"]
    shown.locator("#level").get_by_label("9 (1)").check()
    assert problems(shown) == ["p1"]
    shown.get_by_role("button", name="Reset").click()
    assert problems(shown) == ["p0", "p1", "p2", "p3"] and shown.locator("input:checked").count() == 0


def test_a_column_sorts_both_ways_numbers_by_size_and_what_is_missing_last(show):
    shown = show(ROWS)
    expected = {
        "level": ["p3", "p1", "p0", "p2"],
        "tokens": ["p3", "p1", "p2", "p0"],
        "seconds": ["p2", "p3", "p1", "p0"],
    }
    for name, order in expected.items():
        shown.get_by_role("button", name=name, exact=True).click()
        assert problems(shown) == order
        assert shown.locator("th[aria-sort=ascending]").inner_text() == name
    shown.get_by_role("button", name="level", exact=True).click()
    shown.get_by_role("button", name="level", exact=True).click()
    assert problems(shown) == ["p0", "p1", "p3", "p2"]
    assert shown.locator("th[aria-sort=descending]").inner_text() == "level"


def test_search_reads_question_completion_answer_and_gold(show):
    shown = show(ROWS)
    for text, expected in {
        "final WORD": ["p2"],
        "0.5": ["p3"],
        "7": ["p1"],
        "$1+1$": ["p0", "p1", "p2", "p3"],
        "Q:": [],
    }.items():
        shown.get_by_role("searchbox").fill(text)
        wait_for_problems(shown, expected)
        assert problems(shown) == expected


def test_a_completion_opens_with_formulas_or_raw(show):
    shown = show(ROWS)
    shown.locator("#lines tr").nth(3).click()
    dialog = shown.get_by_role("dialog", name="p3 · 4 of 4")
    completion = dialog.locator("[data-field=completion]")
    assert completion.locator("math").count() == 4  # x^2, y, the unknown command as such, and the last
    assert completion.locator("math[display=block], math.tml-display").count() == 2
    assert "For $5 and $6, $5/$6." in completion.inner_text() and "$\\frac{1}{$" in completion.inner_text()
    assert completion.locator("mtext", has_text="\\unknown").count() == 1
    assert dialog.locator("[data-field=answer] mfrac").count() == 1
    assert dialog.locator("[data-field=gold]").inner_text() == "0.5"
    assert dialog.locator("dt").all_inner_texts()[:4] == ["outcome", "strict", "symbolic", "method"]
    dialog.get_by_role("button", name="Raw text").click()
    assert dialog.locator("math").count() == 0
    assert completion.inner_text() == ROWS[3]["completion"]
    assert dialog.get_by_role("button", name="Raw text").get_attribute("aria-pressed") == "true"
    dialog.get_by_text("Prompt, as the model saw it").click()
    assert dialog.locator("[data-field=prompt]").inner_text() == ROWS[3]["prompt"]


def test_the_keyboard_reaches_everything(show):
    shown = show([make_row(problem_id=f"p{i}") for i in range(60)])
    focused = "document.activeElement.innerText"
    shown.keyboard.press("j")
    assert shown.evaluate(focused) == "p0"
    for key, expected in {"ArrowDown": "p1", "j": "p2", "k": "p1", "ArrowUp": "p0"}.items():
        shown.keyboard.press(key)
        assert shown.evaluate(focused) == expected
    shown.keyboard.press("Enter")
    assert shown.locator("#name").inner_text() == "p0 · 1 of 60"
    for _ in range(25):
        shown.keyboard.press("j")
        shown.keyboard.press("ArrowRight")
    assert shown.locator("#name").inner_text() == "p50 · 51 of 60"
    shown.keyboard.press("Escape")
    until(lambda: shown.evaluate(focused) == "p50")  # the focus returns a moment after
    assert shown.get_by_role("dialog").count() == 0 and shown.locator("#page").inner_text() == "page 2 of 2"
    shown.keyboard.press("k")
    assert shown.evaluate(focused) == "p49" and problems(shown)[0] == "p0"
    shown.get_by_role("searchbox").focus()
    shown.keyboard.type("jk")
    assert shown.get_by_role("searchbox").input_value() == "jk"


def test_an_address_leads_back_to_a_completion(show):
    shown = show(ROWS)
    shown.get_by_label("correct (2)", exact=True).check()
    shown.get_by_role("button", name="tokens", exact=True).click()
    shown.locator("#lines tr").nth(1).click()
    shown.wait_for_url(re.compile("row="))
    address = shown.url.split("#")[1]
    reopened = show(ROWS, f"#{address}")
    assert address == "outcome=correct&sort=num_tokens&row=0"
    assert reopened.locator("#name").inner_text() == "p0 · 2 of 2"


def test_hostile_rows_are_shown_and_do_nothing(show):
    rows = [make_row(**dict.fromkeys(FIELDS, attack)) for attack in ATTACKS]
    shown = show(rows, "#sort=__proto__&row=constructor&level=%00")
    for name in shown.locator("#head button").all_inner_texts():
        shown.get_by_role("button", name=name, exact=True).click()
    shown.get_by_role("button", name="Reset").click()
    shown.locator("#lines tr").first.click()
    for attack in ATTACKS:
        field = shown.locator("dialog [data-field=completion]")
        assert field.locator("a[href], img, script, svg, iframe, [id]").count() == 0
        shown.get_by_role("button", name="Raw text").click()
        assert field.evaluate("e => e.textContent") == page.visible(attack)
        shown.get_by_role("button", name="Raw text").click()
        shown.keyboard.press("j")
    assert shown.locator("#lines tr").count() == len(ATTACKS)


def test_ten_thousand_rows_are_shown_page_by_page(show, record_property):
    texts = [row["completion"] for row in read_jsonl(COMPLETIONS)]
    chance = random.Random(0)
    rows = [
        make_row(
            **{"problem_id": f"p{i // 4}", "sample": i % 4, "level": str(i % 12), "num_tokens": chance.randrange(2048)},
            completion=f"{chance.choice(texts)} So $x_{{{i}}} = \\frac{{{i}}}{{7}}$.",
            **{"answer": str(chance.randrange(5000)), "outcome": chance.choice(["correct", "incorrect", "truncated"])},
        )
        for i in range(10_000)
    ]
    shown = show(rows)
    record_property("load_ms", shown.evaluate("performance.now()"))
    measure = """async ([selector, text]) => {
        const start = performance.now(), element = document.querySelector(selector);
        if (text) { element.value = text; element.dispatchEvent(new Event("input")); }
        else element.click();
        const found = () => !text || document.querySelector("#status").innerText.startsWith("1 of");
        while (!found()) await new Promise(done => setTimeout(done, 5));
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        return performance.now() - start;
    }"""
    for name, selector, text in [
        ("filter", "#outcome input", None),
        ("sort numbers", "[data-field=num_tokens] button", None),
        ("sort texts", "[data-field=answer] button", None),
        ("next page", "#page-on", None),
        ("reset", "#reset", None),
        ("search", "#search", "x_{9999}"),
        ("open", "#lines tr", None),
    ]:
        milliseconds = shown.evaluate(measure, [selector, text])
        record_property(f"{name}_ms", milliseconds)
        print(f"{name}: {milliseconds:.0f} ms")
        assert 1 <= shown.locator("#lines tr").count() <= 50
    assert shown.locator("#name").inner_text() == "p2499 · sample 3 · 1 of 1"
    assert shown.locator("dialog [data-field=completion] mfrac").count() == 1
