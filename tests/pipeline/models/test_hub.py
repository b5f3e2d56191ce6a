"""The hub is a local server that speaks the part of its HTTP API that downloads use."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.models.hub import check_model, resolve_model
from tests.conftest import ROOT

SHA = "0123456789abcdef0123456789abcdef01234567"
PROBLEMS = '{"question": "1 + 1?", "answer": "2"}\n{"question": "2 + 2?", "answer": "4"}\n'
REPOS = {
    "models/tiny/safe": {"config.json": "{}", "model.safetensors": "weights", "model.bin": "pickle", "run.py": "code"},
    "models/tiny/pickled": {"config.json": "{}", "pytorch_model.bin": "pickle"},
    "datasets/tiny/sums": {"train.jsonl": PROBLEMS},
}


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):  # paths-info
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self):
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
            return self.answer(200, content.encode(), {"ETag": f'"{etag}"', "X-Repo-Commit": SHA})
        if "/tree/" in path:
            body: object = [
                {"type": "file", "path": name, "size": len(text), "oid": SHA} for name, text in files.items()
            ]
        elif "/paths-info/" in path:
            body = []
        else:
            name = kind_name.split("/", 1)[1]
            body = {"id": name, "sha": SHA, "siblings": [{"rfilename": file} for file in files]}
        return self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub_url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(code, endpoint, home):
    """Run code in a process of its own: HF_ENDPOINT is read at import."""
    imports = "from pipeline.config import *; from pipeline.models.hub import *; from pipeline.data import *\n"
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": python_path()}
    command = [sys.executable, "-c", imports + code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60)
    return result.stdout.strip() or result.stderr.strip().splitlines()[-1]


def python_path():
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


UNREACHABLE = "http://127.0.0.1:9"


def test_a_hub_model_is_downloaded_without_pickles_or_code_and_found_again_offline(hub_url, tmp_path):
    code = 'print(sorted(p.name for p in resolve_model(ModelConfig(name="tiny/safe")).iterdir()))'
    assert ask(code, hub_url, tmp_path) == "['config.json', 'model.safetensors']"
    assert ask(code, UNREACHABLE, tmp_path) == "['config.json', 'model.safetensors']"
    assert "in cache" in ask('print(check_model(ModelConfig(name="tiny/safe")))', UNREACHABLE, tmp_path)


@pytest.mark.parametrize(
    ("name", "endpoint", "message"),
    [
        ("tiny/pickled", None, "must have *.safetensors weights"),
        ("tiny/none", None, "cannot be found"),
        ("no spaces", None, "cannot be found"),
        ("tiny/safe", UNREACHABLE, "hub cannot be reached and it is not in the cache"),
    ],
)
@pytest.mark.parametrize("function", ["check_model", "resolve_model"])
def test_an_unusable_hub_model_is_a_one_line_error(name, endpoint, message, function, hub_url, tmp_path):
    answer = ask(f'{function}(ModelConfig(name="{name}"))', endpoint or hub_url, tmp_path)
    assert answer.startswith("pipeline.errors.ModelError: ")
    assert message in answer


def test_a_hub_model_is_checked_without_downloading(hub_url, tmp_path):
    answer = ask('print(check_model(ModelConfig(name="tiny/safe")))', hub_url, tmp_path)
    assert answer == f"tiny/safe on the Hugging Face hub, revision {SHA}"
    assert not list(tmp_path.rglob("config.json"))


def test_hub_data_is_loaded_and_found_again_offline(hub_url, tmp_path):
    code = 'print([p.gold for p in load_problems(DataConfig(name="tiny/sums", train_split="train[1:]"), "train")])'
    assert ask(code, hub_url, tmp_path) == "['4']"
    assert ask(code, UNREACHABLE, tmp_path) == "['4']"


def test_unreachable_hub_data_is_a_one_line_error(tmp_path):
    answer = ask('check_data(DataConfig(name="tiny/sums"))', UNREACHABLE, tmp_path)
    assert answer.startswith("pipeline.errors.DataError: data tiny/sums cannot be downloaded")


def test_a_local_model_needs_a_config_and_safetensors(tmp_path):
    config = ModelConfig(name=str(tmp_path))
    with pytest.raises(ModelError, match=r"must have a config\.json"):
        resolve_model(config)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="safetensors"):
        check_model(config)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert resolve_model(config) == tmp_path
    assert check_model(config) == f"local directory {tmp_path}"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere-at-all", "output/experiments/none/final_model"])
def test_a_missing_model_directory_is_named(name):
    with pytest.raises(ModelError, match=f"model directory {name} does not exist"):
        resolve_model(ModelConfig(name=name))


def test_an_unknown_embedded_model_is_answered_with_the_known_one():
    with pytest.raises(ModelError, match="embedded:smollm2-135m-instruct"):
        check_model(ModelConfig(name="embedded:llama"))


def test_fetch_prints_a_config_error_without_a_traceback(tmp_path):
    command = [sys.executable, "jobs/fetch.py", "--config", str(tmp_path / "none.yaml")]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert result.returncode == 2
    assert result.stderr.startswith("error: config file") and "Traceback" not in result.stderr
