"""The page of a run in a real Chromium, as a file and live."""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from pipeline.files import write_json
from pipeline.reports import page
from pipeline.run_page.page import run_page
from pipeline.run_page.server import LivePage
from pipeline.run_page.state import RunState
from pipeline.runs.ledger import USES
from pipeline.runs.metrics_log import truncate_metrics
from pipeline.runs.problem_record import FIELDS
from pipeline.runs.rollout_record import write_rollouts
from pipeline.types import RewardBreakdown
from tests.support.hostile_completions import HOSTILE_COMPLETIONS
from tests.support.ledgers import group
from tests.support.pages import until
from tests.support.run_pages import add_steps, begin_run, clean, ledger_row, metrics_row
from tests.support.runs import write_metrics

PROBLEMS = [
    {"problem_id": "fell", "level": "1", "type": "sums", "source": "own", "question": "What is $1+1$?", "gold": "2"},
    {"problem_id": "rose", "level": "2", "type": "sums", "source": "own", "question": "What is 3?", "gold": "3"},
    {"problem_id": "never", "level": "2", "type": "products", "source": "own", "question": "Why?", "gold": "4"},
]
RIGHT, WRONG = ["correct"] * 8, ["incorrect"] * 8


def small_run(run_dir):
    begin_run(run_dir, PROBLEMS)
    outcomes = {1: (RIGHT, WRONG), 2: (WRONG, RIGHT), 3: (WRONG, RIGHT)}
    rows = [
        ledger_row(step, name, own, position)
        for step, both in outcomes.items()
        for position, (name, own) in enumerate(zip(("fell", "rose"), both, strict=True))
    ]
    texts = {(3, "fell"): ["So $x^2$ is <answer>7</answer>"] * 8, (3, "rose"): ["It is 3."] * 8}
    add_steps(run_dir, rows, texts)
    return run_dir


@pytest.fixture
def show(open_page) -> Callable[..., Any]:
    def shown(run_dir) -> Any:
        state = RunState(run_dir)
        state.read()
        opened = open_page(run_page(state, "", {}))
        opened.wait_for_selector("body[data-ready]", state="attached")
        return opened

    return shown


@contextmanager
def served(run_dir, chromium):
    """The live page, its requests and what it logs."""
    with LivePage(run_dir) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        shown = chromium.new_page()
        events: list[str] = []
        shown.on("request", lambda request: events.append(request.url.removeprefix(server.url)))
        shown.on("console", lambda message: events.append(message.text))
        shown.on("pageerror", lambda error: events.append(str(error)))
        shown.goto(server.url)
        shown.wait_for_selector("body[data-ready]", state="attached")
        yield shown, events
        shown.close()
        server.shutdown()
        thread.join(10)


def problems(shown: Any) -> list[str]:
    return shown.locator("#lines tr th").all_inner_texts()


def test_problems_are_filtered_and_opened_down_to_their_completions(show, tmp_path):
    shown = show(small_run(tmp_path / "run"))
    assert shown.locator(".curve .main-svg").count() > 5
    labels = shown.locator("#label label").all_inner_texts()
    assert labels == ["forgotten (1)", "learned (1)", "never tried (1)"]
    assert shown.locator("#lines .strip").evaluate_all("all => all.map((one) => one.title)") == [
        "step 1: 8 of 8, step 2: 0 of 8, step 3: 0 of 8",
        "step 1: 0 of 8, step 2: 8 of 8, step 3: 8 of 8",
        "never tried",
    ]
    shown.get_by_label("level 2").or_(shown.locator("#level").get_by_label("2 (2)")).first.check()
    assert problems(shown) == ["rose", "never"]
    shown.get_by_role("button", name="Reset").click()
    shown.get_by_label("forgotten (1)").check()
    assert problems(shown) == ["fell"]
    shown.locator("#lines tr").first.click()
    dialog = shown.get_by_role("dialog")
    until(lambda: dialog.locator(".attempt").count() == 8)
    assert dialog.locator(".attempt p").first.inner_text() == ("incorrect · answer found: 7 · reward 0 · correctness 1")
    assert dialog.locator(".attempt math").count() == 8 and dialog.locator("[data-field=question] math").count() == 1
    assert "step 1 · 8 of 8 solved" in dialog.locator("p.soft").last.inner_text()  # no completions of it are stored
    until(lambda: dialog.locator("#posterior .main-svg").count() > 0)
    dialog.get_by_role("button", name="Raw text").click()
    until(lambda: dialog.locator(".attempt").count() == 8 and dialog.locator(".attempt math").count() == 0)


def test_the_newest_groups_come_first_and_unfold(show, tmp_path):
    shown = show(small_run(tmp_path / "run"))
    named = [text.split(" · ")[:2] for text in shown.locator("#groups summary").all_inner_texts()]
    assert named == [[f"step {step}", name] for step in (3, 2, 1) for name in ("rose", "fell")]
    shown.locator("#groups summary").first.click()
    until(lambda: shown.locator("#groups .attempt").count() == 8)
    assert "What is 3?" in shown.locator("#groups details").first.inner_text()


@pytest.mark.parametrize("is_recorded", [False, True])
def test_groups_of_one_problem_in_one_step_have_their_own_completions(show, tmp_path, is_recorded):
    run_dir = begin_run(tmp_path / "run", [{"problem_id": name} for name in ("p0", "p1")])
    outcomes = [RIGHT[:2], WRONG[:2], ["unparsed"] * 2]
    rows = [ledger_row(1, "p0", own, position) for position, own in enumerate(outcomes)]
    dropped = ledger_row(1, "p0", WRONG, 1, use="refilled")
    add_steps(run_dir, [rows[0], dropped, *rows[1:]], {(1, "p0"): ["a", "b"]})
    if is_recorded:
        write_recorded(run_dir, [own[0] for own in outcomes])
    shown = show(run_dir)
    blocks = shown.locator("#groups details")
    for block in blocks.all():
        block.locator("summary").click()
    until(lambda: shown.locator("#groups .attempt").count() == 6)
    verdicts = [block.locator(".attempt b").all_inner_texts() for block in blocks.all()]
    assert verdicts == [["unparsed"] * 2, ["incorrect"] * 2, [], ["correct"] * 2]


def write_recorded(run_dir, outcomes):
    """Rollouts of one problem in step 1, a group per outcome, by two workers."""
    rewards = [(RewardBreakdown(0.0, {}, outcome),) * 2 for outcome in outcomes]
    groups = [replace(group(1, 0), rewards=own) for own in rewards]
    write_rollouts(run_dir, groups[1:], "rl", 1, first_position=1)
    write_rollouts(run_dir, groups[:1], "rl", 1)


def test_the_page_says_that_completions_of_dropped_groups_are_not_stored(show, tmp_path):
    run_dir = begin_run(tmp_path / "run", [])
    rows = [ledger_row(1, use, WRONG[:1], position, use=use) for position, use in enumerate(USES)]
    add_steps(run_dir, rows, {(1, use): ["a"] for use in USES})
    shown = show(run_dir)
    for summary in shown.locator("#groups summary").all():
        summary.click()
    until(lambda: shown.locator("#groups .attempt").count() == 4)
    said = shown.locator("#groups summary", has_text="completions of dropped groups are not stored").all_inner_texts()
    assert [text.split(" · ")[1] for text in said] == ["stage_ended", "surplus", "refilled"]
    assert "newer completions only" not in shown.locator("#groups").inner_text()


def test_curves_are_drawn_against_steps_or_tokens_without_exponents(show, tmp_path):
    run_dir = small_run(tmp_path / "run")
    write_metrics(
        run_dir, [metrics_row(step) | {"loss": 3e-8 * (-1) ** step, "reward/<b>&$x$": 1.0} for step in (1, 2, 3)]
    )
    shown = show(run_dir)
    ticks = shown.locator(".curve .ytick").all_text_contents()
    assert ticks and not [text for text in ticks if "e" in text or "n" in text or "μ" in text or "×" in text]
    assert shown.locator(".legendtext", has_text="<b>&$x$").count() == 1
    shown.get_by_label("sampled tokens").check()
    until(lambda: shown.locator(".curve .xtitle").first.text_content() == "sampled tokens")
    assert "400" in shown.locator(".curve .xtick").all_text_contents()  # 6 groups of 80 tokens


def test_accuracy_between_stages_is_that_of_answers_with_whole_intervals(show, tmp_path):
    run_dir = small_run(tmp_path / "run")
    for step, name, share in ((0, "before", 0.25), (3, "rl", 0.5)):
        overall = {"num_problems": 4, "accuracy_tagged": 0.0, "accuracy_last_number": 0.0, "answer_accuracy": share}
        write_json(run_dir / "eval" / f"{name}.json", {"name": name, "step": step, "levels": {}, "overall": overall})
    plots = (
        show(run_dir)
        .locator(".curve")
        .evaluate_all(
            "all => all.map((one) => [one.layout.title.text, one.layout.yaxis.range, one.data.map((trace) => trace.y)])"
        )
    )
    ((low, high), values) = next(rest for title, *rest in plots if "Answer accuracy" in title)
    assert values == [[0.25, 0.5]] and low < 0.046 and high > 0.85  # Wilson: 0.046 to 0.70, and 0.15 to 0.85


@pytest.mark.slow
def test_31_hostile_completions_run_nothing(show, tmp_path):
    """``show`` fails on a request, a dialog, an error or a line in the console."""
    problems, rows, texts = [], [], {}
    for i, text in enumerate(HOSTILE_COMPLETIONS):
        name = clean(f"{i} {text}"[:300]) or ""
        problems.append({"problem_id": name, **dict.fromkeys(FIELDS[1:], text)})
        rows.append(ledger_row(1, name, ["correct", "incorrect"], i, stage="</script><b>"))
        texts[1, name] = [text, text]
    run_dir = begin_run(tmp_path / "run", problems)
    add_steps(run_dir, rows, texts)
    shown = show(run_dir)
    shown.locator("#lines tr").first.click()
    dialog = shown.get_by_role("dialog")
    for text in HOSTILE_COMPLETIONS:
        until(lambda: dialog.locator(".attempt").count() == 2)
        box = dialog.locator(".attempt .text").first
        assert box.locator("a[href], img, script, svg, iframe, style, form, [id]").count() == 0
        shown.get_by_role("button", name="Raw text").click()
        until(lambda: dialog.locator(".attempt").count() == 2)
        seen = box.evaluate("e => e.textContent")
        assert seen == page.visible(text)
        shown.get_by_role("button", name="Raw text").click()
        shown.keyboard.press("ArrowRight")
    shown.keyboard.press("Escape")
    shown.get_by_role("button", name="Older groups").click()
    for summary in shown.locator("#groups summary").all():
        summary.click()
    until(lambda: shown.locator("#groups .attempt").count() == 62)
    assert shown.locator("#groups").locator("a[href], img, script, svg, iframe, style, form").count() == 0
    assert shown.evaluate("({}).polluted") is None


def test_a_live_page_takes_up_new_steps_without_loading_again(chromium, tmp_path):
    run_dir = small_run(tmp_path / "run")
    with served(run_dir, chromium) as (shown, events):
        shown.locator("#lines tr").nth(2).click()
        assert shown.locator("#name").inner_text() == "never · 3 of 3"
        add_steps(run_dir, [ledger_row(4, "never", ["correct"] * 8)], {(4, "never"): ["Because."] * 8})
        until(lambda: "step 4" in shown.locator("#live").inner_text())
        until(lambda: shown.locator("#groups summary").first.inner_text().startswith("step 4 · never"))
        assert shown.locator("#name").inner_text() == "never · 3 of 3"  # it stays open
        shown.keyboard.press("Escape")
        assert shown.locator("#label label").all_inner_texts()[-1] == "solved from the start (1)"
        shown.locator("#groups summary").first.click()
        until(lambda: shown.locator("#groups .attempt").count() == 8)
        assert "completions?step=4" in events
        assert [event.split("?")[0] for event in events if not event.startswith(("rows?", "completions?"))] == [""]
        truncate_metrics(run_dir, 1)
        add_steps(run_dir, [ledger_row(2, "fell", RIGHT)])
        until(
            lambda: shown.wait_for_timeout(20) is None and events.count("") == 2
        )  # a resumed run repeats steps: the page is loaded again
        until(lambda: "step 2" in shown.locator("#live").inner_text())


def test_an_open_problem_stays_when_its_label_leaves_the_filter(chromium, tmp_path):
    run_dir = small_run(tmp_path / "run")
    with served(run_dir, chromium) as (shown, _):
        for label in ("forgotten (1)", "never tried (1)"):
            shown.get_by_label(label).check()
        shown.locator("#lines tr").nth(1).click()
        add_steps(run_dir, [ledger_row(4, "never", RIGHT)])
        until(lambda: "step 4" in shown.locator("#live").inner_text())
        shown.get_by_role("button", name="Raw text").click()
        assert shown.locator("#name").inner_text() == "never · 2 of 2"


def test_many_new_groups_at_once_leave_no_gap_above_an_open_one(chromium, tmp_path):
    run_dir = begin_run(tmp_path / "run", [])
    add_steps(run_dir, [ledger_row(step, "p", RIGHT) for step in range(1, 22)])
    with served(run_dir, chromium) as (shown, _):
        shown.locator("#groups summary").last.click()
        add_steps(run_dir, [ledger_row(step, "p", RIGHT) for step in range(22, 52)], {(51, "p"): ["a"]})
        until(lambda: "step 51" in shown.locator("#live").inner_text())
        listed = shown.locator("#groups summary").all_inner_texts()
        assert [text.split(" · ")[0] for text in listed] == [f"step {step}" for step in range(51, 1, -1)]
        (run_dir / "samples" / "step_000051.jsonl").unlink()
        shown.locator("#groups summary").first.click()
        until(lambda: "no longer stored" in shown.locator("#groups details").first.inner_text())


def test_a_live_page_of_a_run_that_has_not_begun_fills(chromium, tmp_path):
    run_dir = begin_run(tmp_path / "run", [])
    with served(run_dir, chromium) as (shown, events):
        assert shown.locator("#lines tr").count() == 0
        add_steps(run_dir, [ledger_row(1, "p", RIGHT)])
        until(lambda: problems(shown) == ["p"])
        until(lambda: shown.locator(".curve .main-svg").count() > 5)
        assert [event for event in events if not event.startswith("rows?")] == [""]
