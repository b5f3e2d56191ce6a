"""The live page answers this machine, and whoever has the token."""

import http.client
import json
import threading
from collections.abc import Iterator

import pytest

from pipeline.errors import CheckpointError
from pipeline.run_page.server import LivePage
from pipeline.runs.ledger import ledger_path
from tests.support.run_pages import add_steps, begin_run, ledger_row

PROBLEMS = [{"problem_id": "p", "question": "p?"}]


@pytest.fixture
def live(tmp_path) -> Iterator[LivePage]:
    run_dir = begin_run(tmp_path / "run", PROBLEMS)
    add_steps(run_dir, [ledger_row(1, "p", ["correct"])], {(1, "p"): ["It is <answer>2</answer>."]})
    with LivePage(run_dir) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def ask(live: LivePage, path: str, host: str | None = None, method: str = "GET"):
    connection = http.client.HTTPConnection("127.0.0.1", live.server_port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_the_page_its_news_and_its_completions(live):
    answer, html = ask(live, f"/{live.token}/")
    assert answer.status == 200 and "connect-src 'self'" in html
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"
    cursor = "generation=0&metrics=1&groups=1&problems=1&evaluations=0"
    _, news = ask(live, f"/{live.token}/rows?{cursor}")
    assert json.loads(news)["groups"] == [] and json.loads(news)["accuracy"] is None
    add_steps(live.run_dir, [ledger_row(2, "p", ["correct"])])
    _, news = ask(live, f"/{live.token}/rows?{cursor}")
    assert [row["step"] for row in json.loads(news)["metrics"]] == [2] and list(json.loads(news)["problems"]) == ["0"]
    (completion,) = json.loads(ask(live, f"/{live.token}/completions?step=1")[1])
    assert (completion["answer"], completion["outcome"], completion["parts"]) == ("2", "correct", {"correctness": 1.0})
    assert ask(live, f"/{live.token}/completions?step=2")[1] == "[]"


def test_every_request_needs_the_token(live):
    for path in (
        "/",
        "//",
        "/rows",
        "/wrong/",
        f"/{live.token[:-1]}/",
        f"/{live.token}x/rows",
        "/%C3%A9/",
    ):
        answer, body = ask(live, path)
        assert answer.status == 403 and live.token not in body, path


def test_another_host_name_is_refused(live):
    """A page of a site that its name server points to this machine."""
    port = live.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}.evil.example", ""):
        assert ask(live, f"/{live.token}/", host)[0].status == 403, host
    assert ask(live, f"/{live.token}/rows", f"localhost:{port}")[0].status == 200
    assert live.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../experiment_config.json", 404),
        ("%2e%2e/experiment_config.json", 404),
        ("/etc/passwd", 404),
        ("rows/", 404),
        ("completions?step=../../x", 400),
        ("completions?step=-1", 400),
        ("completions?step=" + "9" * 5000, 400),
        ("rows?nothing=1", 400),
        ("rows?groups=x", 400),
    ],
)
def test_no_address_is_a_path(live, path, status):
    assert ask(live, f"/{live.token}/{path}")[0].status == status


def test_only_reading_is_possible(live):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(live, f"/{live.token}/", method=method)[0].status == 501


def test_a_corrupt_file_is_told_and_the_page_goes_on_when_it_is_whole(live):
    part = next(ledger_path(live.run_dir).iterdir())
    whole = part.read_bytes()
    part.write_bytes(b"no")
    answer, body = ask(live, f"/{live.token}/rows")
    assert answer.status == 503 and "part_00001.parquet" in body
    part.write_bytes(whole)
    assert ask(live, f"/{live.token}/rows")[0].status == 200


def test_what_is_no_run_and_a_port_that_is_taken_are_user_errors(tmp_path, live):
    with pytest.raises(CheckpointError, match="must hold experiment_config"):
        LivePage(tmp_path)
    with pytest.raises(CheckpointError, match="--port must be free"):
        LivePage(live.run_dir, live.server_port)
    (live.run_dir / "stages" / "abc").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"a search.*stages/abc"):
        LivePage(live.run_dir)
