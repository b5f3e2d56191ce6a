"""Whole evaluations by jobs/evaluate.py: real Ray and real vLLM engines on a tiny random model."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.evaluation.results import ResultsFile
from tests.support.jobs import only_run, run_job, save_recipe, start
from tests.support.models import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOB = "jobs/evaluate.py"
NUM_PROBLEMS, NUM_SAMPLES = 64, 2


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """Two models answer 64 problems twice each, in chunks of 8; one prompt is too long for the engine."""
    directory = tmp_path_factory.mktemp("recipe")
    rows = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(NUM_PROBLEMS - 1)]
    rows.append({"question": "so " * 40 + "1 + 1?", "answer": "2"})
    (directory / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = {name: str(save_tiny_model(directory / name, seed)) for seed, name in enumerate(("first", "second"))}
    settings = {
        "model": models,
        "dataset": str(directory / "test.jsonl"),
        "data": {"eval_split": "train"},  # of one file the only split
        "prompt": {"template": "{question} "},
        "loading": {"dtype": "float32"},
        "rollout": {"num_samples": NUM_SAMPLES, "temperature": 1.0, "max_completion_length": 48}
        | {"max_prompt_length": 64, "prompts_per_chunk": 8, "memory_gib": 1.0, "kv_cache_gib": 1.0, "num_cpus": 0.25},
        "seed": 5,
    }
    return save_recipe(directory, settings)


def evaluate(recipe: Path, root: Path, *overrides: str) -> Path:
    run_job("--config", recipe, f"output.root={root}", *overrides, script=JOB)
    return only_run(root)


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """Without what differs from run to run."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in ResultsFile(directory).rows()]


@pytest.fixture(scope="module")
def reference(recipe, tmp_path_factory) -> Path:
    """An evaluation that nothing disturbs, with one engine."""
    return evaluate(recipe, tmp_path_factory.mktemp("reference"))


def test_everything_is_answered_once_and_reported(reference):
    rows = rows_of(reference)
    keys = [(row["model"], row["problem_id"], row["sample"]) for row in rows]
    assert len(keys) == len(set(keys)) == 2 * NUM_PROBLEMS * NUM_SAMPLES
    too_long = [row for row in rows if row["question"].startswith("so ")]
    assert len(too_long) == 4 and all(row["outcome"] == "truncated" and row["num_tokens"] == 0 for row in too_long)
    assert all(0 < row["num_tokens"] <= 48 for row in rows if row not in too_long)
    assert rows[0]["prompt"] == "0 + 0? " and rows[0]["completion"] != rows[1]["completion"]
    summary = json.loads((reference / "summary.json").read_text())
    assert [result["num_problems"] for result in summary["results"]] == [NUM_PROBLEMS] * 2
    assert [c["a"] for c in summary["comparisons"]] == ["first"] and "second" in summary["comparisons"][0]["sentence"]
    for name in ("report.html", "eval_results.parquet", "plots/evaluation.png", "logs/driver.log"):
        assert (reference / name).stat().st_size > 0
    assert not (reference / "merged_model").exists()


def test_the_same_evaluation_gives_the_same_rows_with_one_engine_and_with_three(recipe, reference, tmp_path):
    """Sampled completions; greedy ones are a special case."""
    assert rows_of(evaluate(recipe, tmp_path, "rollout.num_workers=3")) == rows_of(reference)


def test_greedy_completions_are_the_same_with_one_engine_and_with_three(recipe, tmp_path):
    greedy = ("rollout.temperature=0", "rollout.num_samples=1", f"model={recipe.parent / 'first'}")
    one, three = (
        rows_of(evaluate(recipe, tmp_path / str(count), f"rollout.num_workers={count}", *greedy)) for count in (1, 3)
    )
    assert len(one) == NUM_PROBLEMS and one == three


def test_a_killed_evaluation_goes_on_and_gives_the_same_rows(recipe, reference, tmp_path):
    with start("--config", recipe, f"output.root={tmp_path}", script=JOB) as process:
        wait_for_rows(tmp_path, 20, process)
        process.kill()
    directory = only_run(tmp_path)
    assert 0 < len(rows_of(directory)) < len(rows_of(reference))
    with (directory / "eval_results.jsonl").open("a") as file:
        file.write('{"model": "fi')
    run_job("--resume", "latest", "--config", recipe, f"output.root={tmp_path}", script=JOB)
    assert rows_of(directory) == rows_of(reference)


def test_an_engine_that_is_killed_is_replaced_and_nothing_is_lost_or_counted_twice(recipe, reference, tmp_path):
    with start("--config", recipe, f"output.root={tmp_path}", script=JOB) as process:
        wait_for_rows(tmp_path, 1, process)
        os.kill(engine_of(process.pid), signal.SIGKILL)
        assert process.wait(timeout=400) == 0
    directory = only_run(tmp_path)
    assert rows_of(directory) == rows_of(reference)
    assert (directory / "logs" / "rollout_0.log").read_text().count("actors.rollout: engine for") == 3  # 2 undisturbed


def test_an_evaluation_cannot_be_resumed_as_another_one(recipe, reference):
    command = ["--resume", str(reference), "rollout.max_completion_length=8"]
    with pytest.raises(AssertionError, match="must be resumed as it was started, and its settings differ"):
        run_job(*command, script=JOB)


def wait_for_rows(root: Path, count: int, process: Any, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.read_bytes().count(b"\n") >= count for path in root.glob("exp_*/eval_results.jsonl")):
            return
        time.sleep(0.02)
    raise AssertionError(f"{count} rows were not reached: exit code {process.poll()}")


def engine_of(pid: int) -> int:
    """The process of an engine that the job started."""
    (engine, *_) = [p.pid for p in psutil.Process(pid).children(recursive=True) if "ray::EvalWorker" in p.name()
                    or "ray::EvalWorker" in " ".join(p.cmdline())]  # fmt: skip
    return engine
