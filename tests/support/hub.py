"""A local server that speaks the part of the Hugging Face hub's HTTP API that downloads use."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"
PROBLEMS = '{"question": "1 + 1?", "answer": "2"}\n{"question": "2 + 2?", "answer": "4"}\n'
REPOS = {
    "models/tiny/safe": {"config.json": "{}", "model.safetensors": "weights", "model.bin": "pickle", "run.py": "code"},
    "models/tiny/pickled": {"config.json": "{}", "pytorch_model.bin": "pickle"},
    "datasets/tiny/sums": {"train.jsonl": PROBLEMS},
}
BREAKING_OFF = "broken"
"""A file whose name begins so arrives up to its middle, and no further however often it is asked for."""
UNREACHABLE = "http://127.0.0.1:9"


class Hub(BaseHTTPRequestHandler):
    is_broken = False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:  # paths-info
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.strip("/")
        kind_name = path.removeprefix("api/") if path.startswith(("api/", "datasets/")) else f"models/{path}"
        kind_name = "/".join(kind_name.split("/")[:3])
        files = REPOS.get(kind_name)
        if files is None:
            return self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "/resolve/" in path:
            content = files.get(path.rsplit("/", 1)[1])
            if content is None:
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
            etag = hashlib.sha1(content.encode()).hexdigest()
            self.is_broken = path.rsplit("/", 1)[1].startswith(BREAKING_OFF)
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": SHA}
            if self.is_broken and self.headers.get("Range"):
                return self.answer_rest(content.encode(), headers)
            return self.answer(200, content.encode(), headers)
        body: Any
        if "/tree/" in path:
            body = [{"type": "file", "path": name, "size": len(text), "oid": SHA} for name, text in files.items()]
        elif "/paths-info/" in path:
            body = []
        else:
            name = kind_name.split("/", 1)[1]
            body = {"id": name, "sha": SHA, "siblings": [{"rfilename": file} for file in files]}
        return self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def answer_rest(self, content: bytes, headers: dict[str, str]) -> None:
        """Nothing of the rest of a file that breaks off."""
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        self.send_response(206)
        size = {
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
            "Content-Length": len(content) - start,
        }
        for name, value in {**headers, **size}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if self.is_broken else content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_hub() -> Iterator[str]:
    """The server's address, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    """Point this process to a hub and a cache, as HF_ENDPOINT and HF_HOME do where the libraries are imported."""
    import datasets
    from huggingface_hub import constants

    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {"ENDPOINT": endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # restored: looking into the cache sets it
