"""The page of a run with many groups, in headless Chromium: how soon it opens, and how soon its filters answer.

    python -m tests.benchmarks.page [--num-groups 10000] [--num-problems 4000]

Times are measured in the page, from the start of its navigation, and are those of this machine as busy as it is: beside
them, the processor time of the page's main thread.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from pipeline.run_page.page import run_page
from pipeline.run_page.state import RunState
from pipeline.runs.records import read_jsonl
from tests.conftest import DATA
from tests.support.run_pages import many_groups

ACTIONS = {
    "filter by label": ("click", "#label input"),
    "filter by level": ("click", "#level input"),
    "filter by type": ("click", "#type input"),
    "reset": ("click", "#reset"),
    "sort by label": ("click", "[data-field=label] button"),
    "sort by solve rate": ("click", "[data-field=mean] button"),
    "next page": ("click", "#page-on"),
    "search": ("input", "#search"),
    "open a problem": ("click", "#lines tr"),
}
MARKS = ("rows", "curves")
MEASURE = """async ([kind, selector]) => {
    const start = performance.now(), element = document.querySelector(selector);
    if (kind === "click") element.click();
    else {  // the page waits for the end of typing
        element.value = "39:";
        element.dispatchEvent(new Event("input"));
        await new Promise((done) => setTimeout(done, 200));
    }
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - start - (kind === "click" ? 0 : 200);
}"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--num-groups", type=int, default=10_000)
    parser.add_argument("--num-problems", type=int, default=4_000)
    args = parser.parse_args(argv)
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("needs Chromium")
    texts = [row["completion"] for row in read_jsonl(DATA / "smollm2_completions.jsonl")]
    with tempfile.TemporaryDirectory() as place, sync_playwright() as started:
        run_dir = many_groups(Path(place) / "run", texts, args.num_groups, args.num_problems)
        start = time.monotonic()
        state = RunState(run_dir)
        state.read()
        file = Path(place) / "report.html"
        file.write_text(run_page(state, "", {}), encoding="utf-8")
        print(f"written in {time.monotonic() - start:.1f} s: {file.stat().st_size / 1e6:.1f} MB")
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        measure(browser.new_page(), file)
        browser.close()


def measure(shown: Any, file: Path) -> None:
    session = shown.context.new_cdp_session(shown)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    shown.goto(file.as_uri())
    shown.wait_for_selector("body[data-ready]", state="attached")
    marks = (shown.evaluate("(name) => performance.getEntriesByName(name)[0].startTime", name) for name in MARKS)
    print("open: " + ", ".join(f"{name} after {ms:.0f} ms" for name, ms in zip(MARKS, marks, strict=True)))
    print(f"  {spent(session):.0f} ms processor")
    for name, action in ACTIONS.items():
        before = spent(session)
        milliseconds = shown.evaluate(MEASURE, list(action))
        print(f"{name}: {milliseconds:.0f} ms ({spent(session) - before:.0f} ms processor)")


def spent(session: Any) -> float:
    """Milliseconds of the main thread so far."""
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return 1000 * float(metrics["TaskDuration"])


if __name__ == "__main__":
    main()
