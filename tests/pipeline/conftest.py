"""Pages in a real Chromium."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ARGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make setup")
    names = (os.environ.get("GRADUS_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((path for name in names if name and (path := shutil.which(name))), None)
    if not path:
        pytest.skip("needs Chromium: apt-get install chromium, or set GRADUS_CHROMIUM")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=ARGS)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(60_000)
        yield context
        browser.close()


@pytest.fixture
def open_page(chromium, tmp_path) -> Iterator[Callable[..., Any]]:
    """Opens a page with a browser over rows from a file. The test fails if the page requests anything, logs anything,
    raises an error or opens a dialog."""
    events: list[str] = []

    def dismissed(dialog: Any) -> None:
        events.append(dialog.message)
        dialog.dismiss()

    def opened(html: str, address: str = "") -> Any:
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        shown = chromium.new_page()
        shown.on("request", lambda request: None if request.url == file.as_uri() else events.append(request.url))
        shown.on("console", lambda message: events.append(message.text))
        shown.on("pageerror", lambda error: events.append(str(error)))
        shown.on("dialog", dismissed)
        shown.goto(file.as_uri() + address)
        shown.wait_for_selector("#lines tr")
        return shown

    yield opened
    for shown in chromium.pages:
        shown.close()
    assert events == []
