"""The live page of a run. It answers this machine only, and only whoever knows its token.

GET /TOKEN/                      the page, with everything so far
GET /TOKEN/rows?metrics=..       what a page with this cursor lacks
GET /TOKEN/completions?step=..   the stored completions of a step
"""

import hmac
import secrets
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.errors import CheckpointError
from pipeline.evaluation.browser import to_json
from pipeline.reports import page
from pipeline.reports.accuracy import accuracy_tables
from pipeline.run_page.completions import completions
from pipeline.run_page.page import run_page
from pipeline.run_page.state import Cursor, RunState
from pipeline.runs.records import read_config

REQUEST_TIMEOUT_S = 30.0
MAX_DIGITS = 12
"""Longest number in an address, in digits."""


class LivePage(ThreadingHTTPServer):
    """Serves the page of a run on 127.0.0.1 until it is closed.

    Args:
        port: 0 takes a free one.

    Raises:
        CheckpointError: no such run, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, run_dir: Path, port: int = 0) -> None:
        check_run(run_dir)
        self.run_dir, self.token = run_dir, secrets.token_urlsafe(24)
        self._state, self._lock = RunState(run_dir), threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise CheckpointError(f"--port must be free, got {port}: {error.strerror}. Leave it out.") from None
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was closed meanwhile is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def page(self) -> bytes:
        config = read_config(self.run_dir)
        model = config.get("model", {}).get("name", "")
        with self._lock:
            self._state.read()
            html = run_page(
                self._state,
                page.note(model),
                {"Configuration": page.configuration(config)},
                is_live=True,
            )
        return html.encode()

    def news(self, cursor: Cursor) -> bytes:
        with self._lock:
            self._state.read()
            now, news = self._state.cursor, self._state.since(cursor)
            tables = accuracy_tables(self._state.evaluations) if now.evaluations != cursor.evaluations else None
        return to_json({**news, "cursor": vars(now), "accuracy": tables})

    def completions(self, step: int) -> bytes:
        return to_json(completions(self.run_dir, step))


def check_run(run_dir: Path) -> None:
    """Raises CheckpointError for a directory that is no run of one chain."""
    if not (run_dir / "experiment_config.json").is_file():
        raise CheckpointError(
            f"run directory must hold experiment_config.json, got {run_dir}. Runs are under output/experiments/."
        )
    if (run_dir / "stages").is_dir():
        stages = sorted(path.name for path in (run_dir / "stages").iterdir())
        raise CheckpointError(
            f"run directory must be that of one run, got {run_dir}: a search. Watch one of its stages, such as "
            f"{run_dir / 'stages' / (stages[0] if stages else 'KEY')}."
        )
    if not (run_dir / "metrics").is_dir():
        raise CheckpointError(f"run directory must hold metrics/, got {run_dir}: it is not a training run.")


class _Handler(BaseHTTPRequestHandler):
    """No part of an address is ever a path: there is nothing to climb out of."""

    server: LivePage
    timeout = REQUEST_TIMEOUT_S
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "gradus", ""

    def do_GET(self) -> None:
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            return self._refuse(HTTPStatus.FORBIDDEN, "unknown host")
        address = urlsplit(self.path)
        _, token, *rest = [*address.path.split("/"), ""]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self._refuse(HTTPStatus.FORBIDDEN, "wrong token: use the address that watch.py printed")
        try:
            numbers = {name: _number(values[0]) for name, values in parse_qs(address.query).items()}
            answer = self._route("/".join(rest[:-1]), numbers)
        except (ValueError, TypeError):
            return self._refuse(HTTPStatus.BAD_REQUEST, "not understood")
        if answer is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such page")
        make, kind = answer
        try:
            return self._answer(HTTPStatus.OK, make(), kind)
        except CheckpointError as error:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def _route(self, name: str, numbers: dict[str, int]) -> tuple[Callable[[], bytes], str] | None:
        if name == "rows":
            cursor = Cursor(**numbers)
            return lambda: self.server.news(cursor), "application/json"
        if name == "completions":
            return lambda: self.server.completions(numbers.get("step", 0)), "application/json"
        return (self.server.page, "text/html") if name == "" else None

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._answer(status, page.visible(reason).encode(), "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: addresses hold the token."""


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > MAX_DIGITS:
        raise ValueError(text)
    return int(text)
