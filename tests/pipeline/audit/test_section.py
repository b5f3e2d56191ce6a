"""The audit's section in the report of a run."""

import json
from typing import Any

import pytest

from pipeline.report import write_report
from tests.support.audits import HONEST, made_up_run, sample, write_samples
from tests.support.pages import Page
from tests.support.runs import HOSTILE, make_run, write_metrics


@pytest.fixture(autouse=True)
def without_run_plots(monkeypatch):
    monkeypatch.setattr("pipeline.report.draw_all", lambda run_dir, plots_dir: plots_dir.mkdir() or [])


def test_the_report_has_a_section(tmp_path):
    write_metrics(tmp_path, [{"step": 60}])
    rows = made_up_run({10: 0, 20: 1, 30: 3, 40: 4, 50: 6, 60: 7})
    hostile: dict[str, Any] = {
        "gold": HOSTILE,
        "stage": HOSTILE,
        "question": HOSTILE,
        "problem_id": HOSTILE,
        "reward": HOSTILE,
    }
    write_samples(tmp_path, [*rows, sample(60, 9, HONEST + HOSTILE, **hostile)], tail="{")
    page = Page(write_report(tmp_path))
    assert "Reward-hacking audit" in page.text and "That is more than its noise." in page.text
    assert "disagreement, format · 3 of 84" in page.text and "trick, text after answer · " in page.text
    assert not {"answer", "reasoning"} & {tag for tag, _ in page.tags}
    # The hostile texts have no tag of theirs: 7 scripts are the page's, and two hold data.
    assert [tag for tag, _ in page.tags].count("script") == 9
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert (tmp_path / "plots" / "audit.png").stat().st_size > 10_000
    summary = json.loads((tmp_path / "summary.json").read_text())["audit"]
    assert summary["num_samples"] == 193 and "examples" not in summary


def test_a_run_without_samples_has_no_section(tmp_path):
    run_dir = make_run(tmp_path, sft_steps=5, grpo_steps=0)
    assert "Reward-hacking audit" not in Page(write_report(run_dir)).text
    assert not (run_dir / "plots" / "audit.png").exists()
    assert "audit" not in json.loads((run_dir / "summary.json").read_text())
