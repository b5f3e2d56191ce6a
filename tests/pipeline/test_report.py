"""The report of a run: what is written where, and that its page is safe to open."""

import json
import re
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from pipeline.report import write_report
from pipeline.runs.ledger import ledger_path
from tests.support.ledgers import good_metrics, good_rows
from tests.support.ledgers import write_run as write_ledger_run
from tests.support.pages import Page, fingerprint
from tests.support.plots import small_plots
from tests.support.runs import HOSTILE, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run_dir = make_run(tmp_path_factory.mktemp("run"))
    with small_plots():
        write_report(run_dir)
    return run_dir


@pytest.fixture
def without_plots(monkeypatch):
    """The audit's plot alone: those of the metrics have tests of their own."""
    monkeypatch.setattr("pipeline.report.draw_all", lambda run_dir, plots_dir: plots_dir.mkdir(parents=True) or [])
    with small_plots():
        yield


def test_a_report_is_a_summary_a_page_and_plots(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["run"] == run.name and summary["num_steps"] == 57
    assert {"reward", "accuracy", "accuracy_change", "outcomes", "data", "audit", "versions"} <= summary.keys()
    assert len(list((run / "plots").glob("*.png"))) == 6
    assert "Completions that could not be graded" not in Page(run / "report.html").text


def test_the_page_needs_nothing_but_itself(run):
    page = Page(run / "report.html")
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "iframe", "object", "form", "svg"}
    assert not [attrs for tag, attrs in page.tags if tag == "script" and "src" in attrs]
    pictures = [attrs["src"][:22] for tag, attrs in page.tags if tag == "img"]
    assert pictures == ["data:image/png;base64,"] * 2  # for browsers without scripts, and the audit's
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "href"]
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "connect-src" not in policy


def test_the_page_opens_with_the_curves_and_one_table_of_accuracy(run):
    html = (run / "report.html").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[:2] == ["Curves", "Accuracy on held-out problems"]
    section = html[html.index("<h2>Accuracy") :].split("<h2>")[1]
    before, _, folded = section.partition("<details>")
    assert before.count("<table") == 1 and folded.count("<table") == folded.count("<details>") + 1 == 1


def test_hostile_model_text_is_shown_and_does_nothing(tmp_path, without_plots):
    run_dir = make_run(tmp_path, num_evals=1)
    hostile = {key: HOSTILE for key in ("problem_id", "level", "question", "gold", "completion", "outcome", "stage")}
    sample = {**hostile, "step": HOSTILE, "reward": HOSTILE, "parts": {HOSTILE: HOSTILE}, "stop_reason": "length"}
    for name in ("step_000050.jsonl", "eval_before.jsonl"):
        (run_dir / "samples" / name).write_text(json.dumps(sample) + "\n")
    (run_dir / "experiment_config.json").write_text(json.dumps({"model": {"name": HOSTILE}, HOSTILE: HOSTILE}))
    page = Page(write_report(run_dir))
    assert [tag for tag, _ in page.tags].count("script") == 9  # 7 that run, and two that hold data
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert [attrs["src"][:5] for tag, attrs in page.tags if tag == "img"] == ["data:"]  # the audit's
    assert page.text.count('</script></pre><img src=x onerror=alert(1)> & "quoted" \\x00 \\ud800 \\u202e 72') >= 10


def test_an_output_directory_leaves_the_run_untouched(run, tmp_path, without_plots):
    before = fingerprint(run)
    path = write_report(run, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "report.html"
    assert {p.name for p in path.parent.iterdir()} == {"plots", "summary.json", "report.html"}
    assert fingerprint(run) == before


def test_a_run_with_evaluations_only_is_reported(tmp_path, without_plots):
    run_dir = make_run(tmp_path / "run", num_evals=1)
    (run_dir / "metrics" / "metrics.jsonl").unlink()
    assert "level 5" in Page(write_report(run_dir, tmp_path / "out")).text


def test_errors_name_what_is_wrong(tmp_path, run):
    with pytest.raises(CheckpointError, match="nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no metrics yet"):
        write_report(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="output must be writable"):
        write_report(run, tmp_path / "file" / "x")


def test_the_memory_of_every_point_is_shown(tmp_path, without_plots):
    run = make_run(tmp_path, num_evals=1)
    figures = {"allocated_gib": 1.25, "reserved_gib": 2.0, "peak_gib": 1.5, "used_frac": 0.875, "rss_gib": 0.5}
    stages = {"sft": {"model_loaded": figures}, "rl": {"weight_sync": figures | {"released_gib": 0.75}}}
    (run / "memory.json").write_text(json.dumps(stages))
    text = write_report(run).read_text()
    assert json.loads((run / "summary.json").read_text())["memory"] == stages
    table = text[text.index("Memory of the first learner") :]
    for cells in (
        ["stage", "after", "allocated, GiB", "reserved, GiB", "peak, GiB", "used", "rss, GiB", "released, GiB"],
        ["sft", "model loaded", "1.25", "2.00", "1.50", "87.5%", "0.50", "-"],
        ["rl", "weight sync", "1.25", "2.00", "1.50", "87.5%", "0.50", "0.75"],
    ):
        tag = "th" if cells[0] == "stage" else "td"
        row = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
        assert row in table


def test_the_ledger_is_in_the_report_and_its_violations_in_the_summary(tmp_path, without_plots):
    run_dir = make_run(tmp_path / "run", sft_steps=2, grpo_steps=0, num_evals=1)
    assert "no ledger" in write_report(run_dir).read_text()
    write_ledger_run(tmp_path / "good", good_rows(), good_metrics())
    assert (
        "8 groups of 4 steps (7 trained, 1 truncated), all accounted for" in write_report(tmp_path / "good").read_text()
    )
    write_ledger_run(tmp_path / "bad", good_rows()[1:], good_metrics())
    assert "stage rl, step 1, position 0: must be used once" in write_report(tmp_path / "bad").read_text()
    assert json.loads((tmp_path / "bad" / "summary.json").read_text())["ledger"]["num_violations"] == 3


def test_the_atlas_is_in_the_report_and_in_a_file(tmp_path, without_plots):
    run_dir = write_ledger_run(tmp_path / "run", good_rows(), good_metrics())
    html = write_report(run_dir).read_text()
    assert re.findall(r"<h2>(.*?)</h2>", html)[:3] == ["Curves", "Problems", "Newest groups"]
    assert (run_dir / "metrics" / "problems.parquet").exists()


def test_a_corrupt_ledger_is_named_and_the_rest_is_reported(tmp_path, without_plots):
    run_dir = write_ledger_run(tmp_path / "run", good_rows(), good_metrics())
    next(ledger_path(run_dir).iterdir()).write_bytes(b"no")
    page = Page(write_report(run_dir))
    assert page.text.count("part_00001.parquet must hold rows of a ledger") >= 2  # the atlas, and the check
