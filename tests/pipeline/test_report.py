import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.errors import CheckpointError
from pipeline.report import accuracy_table, write_report
from tests.support.runs import HOSTILE, LEVELS, make_run, write_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run_dir = make_run(tmp_path_factory.mktemp("run"))
    write_report(run_dir)
    return run_dir


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def fingerprint(directory: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_summary_holds_what_the_rows_come_to(tmp_path):
    grpo = {"stage": "b", "kind": "grpo", "unparsed_frac": 0.25, "timeout_frac": 0.0}
    rows = [
        {"step": 1, "stage": "a", "kind": "sft", "time": 100.0, "step_s": 4.0, "learner_s": 3.0},
        {"step": 2, **grpo, "time": 110.0, "step_s": 10.0, "rollout_s": 6.0, "rollout_tokens_per_s": 100.0}
        | {"reward_mean": 1.5, "correct_frac": 0.5},
        {"step": 3, **grpo, "time": 150.0, "step_s": 10.0, "rollout_s": 2.0, "rollout_tokens_per_s": 500.0}
        | {"reward_mean": 1.0, "correct_frac": 0.25, "timeout_frac": 0.125},
    ]
    write_rows(tmp_path, rows)
    stages = [{"name": "b", "settings": {"num_generations": 4}}]
    config = {"grpo": {"batch_size": 2, "num_generations": 8}, "stages": stages}
    (tmp_path / "experiment_config.json").write_text(json.dumps(config))
    write_report(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps_per_stage"] == {"a": 1, "b": 2}
    assert summary["wall_time_s"] == 54.0  # 150 - 100, and the 4 s of the first step
    assert summary["reward"] == {"first": 1.5, "final": 1.0, "mean_of_last_10": 1.25, "best": 1.5, "best_step": 2}
    assert summary["phase_seconds"]["rollout"] == 8.0
    assert summary["grpo_phase_frac"]["rollout"] == 0.4  # 8 of 20 s
    assert summary["tokens_per_s"] == {"rollout": 200.0, "learner": None}  # (600 + 1000) tokens in 8 s
    # 8 completions a step: 4 + 2 correct, 2 + 2 unparsed, 0 + 1 timeouts, the other 2 + 3 incorrect
    counts = {name: outcome["count"] for name, outcome in summary["outcomes"].items()}
    assert counts == {"correct": 6, "incorrect": 5, "unparsed": 4, "timeout": 1, "bad_gold": 0}


def test_summary_holds_every_evaluation_and_the_changes(run):
    summary = json.loads((run / "summary.json").read_text())
    assert [evaluation["name"] for evaluation in summary["accuracy"]] == ["before", "sft-warmup", "grpo-sums"]
    change = summary["accuracy_change"]
    assert change["first_to_last"]["levels"]["level 2"]["tagged"] == pytest.approx(0.34)
    assert [(c["from"], c["to"]) for c in change["between"]] == [("before", "sft-warmup"), ("sft-warmup", "grpo-sums")]
    assert change["between"][1]["levels"]["level 3"] == pytest.approx({"tagged": 0.08, "last_number": 0.08})
    assert summary["accuracy"][0]["levels"]["level 1"]["accuracy_tagged_interval"][1] == pytest.approx(
        0.07135, abs=1e-4
    )
    assert "torch" in summary["versions"]


def test_the_page_needs_nothing_but_itself(run):
    page = Page(run / "report.html")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "svg"}
    assert [attrs["src"][:22] for tag, attrs in page.tags if tag == "img"] == ["data:image/png;base64,"] * 6
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "href"]
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_hostile_model_text_is_shown_and_does_nothing(tmp_path):
    run_dir = make_run(tmp_path, num_evals=1)
    hostile = {key: HOSTILE for key in ("problem_id", "level", "question", "gold", "completion", "outcome", "stage")}
    sample = {**hostile, "step": HOSTILE, "reward": HOSTILE, "parts": {HOSTILE: HOSTILE}, "stop_reason": "length"}
    for name in ("step_000050.jsonl", "eval_before.jsonl"):
        (run_dir / "samples" / name).write_text(json.dumps(sample) + "\n")
    (run_dir / "experiment_config.json").write_text(json.dumps({"model": {"name": HOSTILE}, HOSTILE: HOSTILE}))
    page = Page(write_report(run_dir))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert [attrs["src"][:5] for tag, attrs in page.tags if tag == "img"] == ["data:"] * 6
    assert page.text.count('</script></pre><img src=x onerror=alert(1)> & "quoted" \\x00 \\ud800 \\u202e 72') >= 10


@pytest.mark.parametrize("sample", [{}, {"parts": None, "completion": None}, {"completion": "x" * 100_000}])
def test_samples_with_missing_or_huge_fields_are_no_error(tmp_path, sample):
    write_rows(tmp_path, [{"step": 1}])
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "step_000001.jsonl").write_text(json.dumps(sample) + '\n{"half')
    shown = Page(write_report(tmp_path)).text
    assert "1 of 1" in shown and len(shown) < 20_000


def test_completions_that_could_not_be_graded_are_shown(run, tmp_path):
    heading = "Completions that could not be graded"
    assert heading not in Page(run / "report.html").text
    write_rows(tmp_path, [{"step": 7}])
    (tmp_path / "samples").mkdir()
    late = {"step": 7, "stage": "rl", "outcome": "timeout", "completion": HOSTILE, "gold": HOSTILE}
    samples = [late | {"problem_id": f"late-{index}-"} for index in (0, 0, 1, 2, 3, 4, 5)]
    samples += [{"step": 7, "outcome": "bad_gold", "problem_id": "bad-gold-"}]
    (tmp_path / "samples" / "ungraded.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    page = Page(write_report(tmp_path))
    assert heading in page.text and "step 7 · rl" in page.text
    assert "timeout · 5 of 7 kept" in page.text and "bad gold · 1 of 1 kept" in page.text
    assert [page.text.count(f"late-{index}-") for index in range(6)] == [1, 1, 1, 1, 1, 0]
    assert page.text.count("bad-gold-") == 1
    assert not {"script"} & {tag for tag, _ in page.tags} and page.text.count("<img src=x onerror=alert(1)>") == 10


def test_output_dir_leaves_the_run_untouched(run, tmp_path):
    before = fingerprint(run)
    path = write_report(run, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "report.html"
    assert {p.name for p in path.parent.iterdir()} == {"plots", "summary.json", "report.html"}
    assert fingerprint(run) == before


def test_a_run_with_evaluations_only_is_reported(tmp_path):
    (tmp_path / "run").mkdir()
    make_run(tmp_path / "run", num_evals=1)
    (tmp_path / "run" / "metrics" / "metrics.jsonl").unlink()
    assert "level 5" in Page(write_report(tmp_path / "run")).text


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no metrics yet"):
        write_report(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="output must be writable"):
        write_report(make_run(tmp_path / "run"), tmp_path / "file" / "x")


def test_accuracy_table_has_a_column_per_evaluation(run):
    console = Console(width=100, record=True)
    console.print(accuracy_table(run))
    lines = console.export_text().splitlines()
    assert all(name in lines[2] for name in ("level", "before", "sft-warmup", "grpo-sums"))
    assert [cell.strip() for cell in next(x for x in lines if LEVELS[0] in x).strip("│").split("│")] == [
        "level 1",
        "0.0% (12.0%)",
        "75.0% (76.0%)",
        "80.0% (81.0%)",
    ]
