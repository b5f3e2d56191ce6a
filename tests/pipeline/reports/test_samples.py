"""Completions on a run's page."""

import json
from pathlib import Path

import pytest

from pipeline.reports.samples import before_and_after, completions_by_step, ungraded_completions
from tests.support.pages import Page
from tests.support.runs import HOSTILE, make_run


def page_of(directory: Path, html: str) -> Page:
    (directory / "part.html").write_text(html)
    return Page(directory / "part.html")


def write_samples(run_dir: Path, name: str, samples: list[dict], tail: str = "") -> None:
    (run_dir / "samples").mkdir(exist_ok=True)
    (run_dir / "samples" / name).write_text("".join(json.dumps(sample) + "\n" for sample in samples) + tail)


@pytest.mark.parametrize("sample", [{}, {"parts": None, "completion": None}, {"completion": "x" * 100_000}])
def test_samples_with_missing_or_huge_fields_are_no_error(tmp_path, sample):
    write_samples(tmp_path, "step_000001.jsonl", [sample], tail='{"half')
    shown = completions_by_step(tmp_path)
    assert "1 of 1" in shown and len(shown) < 10_000


def test_steps_are_spread_over_the_run_and_the_last_is_open(tmp_path):
    for step in range(10, 201, 10):
        sample = {"step": step, "stage": "rl", "completion": "c"}
        write_samples(tmp_path, f"step_{step:06d}.jsonl", [sample | {"problem_id": f"p{n // 2}"} for n in range(12)])
    page = page_of(tmp_path, completions_by_step(tmp_path))
    steps = [10, 50, 90, 120, 160, 200]
    assert [f"step {step} · rl · 4 of 12" in page.text for step in steps] == [True] * 6
    assert page.text.count("· 4 of 12") == 6
    assert [dict(attrs) for tag, attrs in page.tags if tag == "details"] == [{}] * 5 + [{"open": None}]


def test_completions_that_could_not_be_graded_are_shown_one_per_problem(tmp_path):
    assert ungraded_completions(tmp_path) == ""
    late = {"step": 7, "stage": "rl", "outcome": "timeout", "completion": HOSTILE, "gold": HOSTILE}
    samples = [late | {"problem_id": f"late-{index}-"} for index in (0, 0, 1, 2, 3, 4, 5)]
    samples += [{"step": 7, "outcome": "bad_gold", "problem_id": "bad-gold-"}]
    write_samples(tmp_path, "ungraded.jsonl", samples)
    page = page_of(tmp_path, ungraded_completions(tmp_path))
    assert "step 7 · rl" in page.text
    assert "timeout · 5 of 7 kept" in page.text and "bad gold · 1 of 1 kept" in page.text
    assert [page.text.count(f"late-{index}-") for index in range(6)] == [1, 1, 1, 1, 1, 0]
    assert page.text.count("bad-gold-") == 1
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count("<img src=x onerror=alert(1)>") == 10


def test_the_first_problem_of_each_level_is_shown_before_and_after(tmp_path):
    run = make_run(tmp_path)
    page = page_of(tmp_path, before_and_after(run, ["before", "sft-warmup", "missing"]))
    assert [tag for tag, _ in page.tags].count("details") == 5
    assert page.text.count("level 1-0") == 1 and "level 1-1" not in page.text
    assert page.text.count("before · wrong (tagged), wrong (last number)") == 5
    assert page.text.count("sft-warmup · right (tagged), wrong (last number)") == 5
