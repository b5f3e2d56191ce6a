"""Whole evaluations by jobs/evaluate.py with real vLLM engines on tiny random models."""

import gc
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from actors.driver.evaluate import _plan_evaluation
from jobs import evaluate
from pipeline.config import EvaluationConfig, load_config
from pipeline.evaluation.results import ResultsFile
from pipeline.runs.checkpoints import Progress
from pipeline.runs.directory import RunDirectory
from tests.support.cluster import free_cpus, joining, wait_until_free
from tests.support.evaluations import run_config
from tests.support.in_process import Engines, evaluate_without_ray
from tests.support.jobs import only_run, start, wait_until
from tests.support.models import save_tiny_model
from tests.support.recipes import evaluation_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_PROBLEMS, NUM_SAMPLES = 64, 2


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("recipe")
    models = {"first": tiny_model, "second": save_tiny_model(directory / "second", seed=1)}
    return evaluation_recipe(models, directory, num_problems=NUM_PROBLEMS)


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    """Engines in this process, by the first evaluation that needs them."""
    started: Engines = {}
    yield started
    started.clear()
    gc.collect()


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """Without what differs from run to run."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in ResultsFile(directory).rows()]


@pytest.fixture(scope="module")
def evaluated(recipe, engines) -> Callable[..., Path]:
    """Runs an evaluation with engines in this process. Returns its directory."""

    def run(root: Path, *overrides: str) -> Path:
        evaluate_without_ray(engines, evaluate.main, "--config", recipe, f"output.root={root}", *overrides)
        return only_run(root)

    return run


@pytest.fixture(scope="module")
def reference(evaluated, tmp_path_factory) -> Path:
    """An evaluation that nothing disturbs, with one engine."""
    return evaluated(tmp_path_factory.mktemp("reference"))


def test_everything_is_answered_once_and_reported(reference):
    rows = rows_of(reference)
    keys = [(row["model"], row["problem_id"], row["sample"]) for row in rows]
    assert len(keys) == len(set(keys)) == 2 * NUM_PROBLEMS * NUM_SAMPLES
    too_long = [row for row in rows if row["question"].startswith("so ")]
    assert len(too_long) == 4 and all(row["outcome"] == "truncated" and row["num_tokens"] == 0 for row in too_long)
    assert all(0 < row["num_tokens"] <= 24 for row in rows if row not in too_long)
    assert rows[0]["prompt"] == "0 + 0? " and rows[0]["completion"] != rows[1]["completion"]
    summary = json.loads((reference / "summary.json").read_text())
    assert [result["num_problems"] for result in summary["results"]] == [NUM_PROBLEMS] * 2
    assert [c["a"] for c in summary["comparisons"]] == ["first"] and "second" in summary["comparisons"][0]["sentence"]
    for name in ("report.html", "eval_results.parquet", "plots/evaluation.png", "logs/driver.log"):
        assert (reference / name).stat().st_size > 0
    assert not (reference / "merged_model").exists()


def test_sampled_completions_are_the_same_with_one_engine_and_with_three(evaluated, reference, tiny_model, tmp_path):
    three = rows_of(evaluated(tmp_path, "rollout.num_workers=3", f"model={tiny_model}"))
    one = [row | {"model": tiny_model.name} for row in rows_of(reference) if row["model"] == "first"]
    assert three == one


def test_greedy_completions_are_the_same_with_one_engine_and_with_three(evaluated, tiny_model, tmp_path):
    greedy = ("rollout.temperature=0", "rollout.num_samples=1", "rollout.prompts_per_chunk=16", f"model={tiny_model}")
    one, three = (
        rows_of(evaluated(tmp_path / str(count), f"rollout.num_workers={count}", *greedy)) for count in (1, 3)
    )
    assert len(one) == NUM_PROBLEMS and one == three


def test_all_engines_and_then_the_driver_are_killed_and_nothing_is_lost_or_counted_twice(
    recipe, reference, engines, ray_address, tmp_path
):
    """Two engines, as processes of their own, are killed after the first answers: the other answers come from engines
    that replace them. The driver's death sets those free. The evaluation is resumed with one engine."""
    free = free_cpus()
    arguments = ("--config", recipe, f"output.root={tmp_path}", "rollout.num_workers=2")
    with start(*arguments, script="jobs/evaluate.py", env=joining(ray_address)) as process:
        try:
            wait_until(lambda: len(engine_processes()) == 2, process)
            killed = engine_processes()  # found before there are answers: looking for them takes a while
            wait_until(lambda: num_rows(tmp_path) > 0, process)
            for engine in killed:
                os.kill(engine, signal.SIGKILL)
            assert num_rows(tmp_path) < NUM_PROBLEMS * NUM_SAMPLES
            wait_until(lambda: num_rows(tmp_path) >= NUM_PROBLEMS * NUM_SAMPLES, process)  # all of the first model
        finally:
            process.kill()
    wait_until_free(free)
    directory = only_run(tmp_path)
    before = rows_of(directory)
    assert before == rows_of(reference)[: len(before)] and len(before) < len(rows_of(reference))
    with (directory / "eval_results.jsonl").open("a") as file:
        file.write('{"model": "fi')
    evaluate_without_ray(
        engines, evaluate.main, "--resume", "latest", f"output.root={tmp_path}", "rollout.num_workers=1"
    )
    assert rows_of(directory) == rows_of(reference)


def num_rows(root: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in root.glob("exp_*/eval_results.jsonl"))


def engine_processes() -> list[int]:
    """The engines of an evaluation, below the Ray that this process started."""
    return [p.pid for p in psutil.Process().children(recursive=True) if "ray::EvalWorker" in " ".join(p.cmdline())]


def test_a_checkpoint_is_not_deleted_while_it_waits_for_its_turn(tiny_model, recipe, tmp_path):
    run = RunDirectory.create(run_config(tiny_model, tmp_path))
    first, _ = (run.checkpoints.save(Progress("sft", n, n), {"w": torch.ones(1)}, {}, None) for n in (1, 2))
    config = load_config(recipe, [f"model={first}"], EvaluationConfig)
    with ExitStack() as held:
        _plan_evaluation(config, None, held)
        run.checkpoints.prune(keep_last=1)
        assert first.exists()
    run.checkpoints.prune(keep_last=1)
    assert not first.exists()


def test_an_evaluation_cannot_be_resumed_as_another_one(reference, engines, capsys):
    with pytest.raises(SystemExit) as error:
        evaluate_without_ray(engines, evaluate.main, "--resume", reference, "rollout.max_completion_length=8")
    assert error.value.code == 2
    assert "must be resumed as it was started, but its settings differ" in capsys.readouterr().err
