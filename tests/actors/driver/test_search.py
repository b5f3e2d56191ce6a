"""Searches as whole jobs: undisturbed in this process, and killed at random moments on real Ray, Tune and engines."""

import json
import os
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import search_replay
from pipeline.curriculum.markers import read_markers
from pipeline.runs.directory import RunDirectory
from pipeline.runs.metrics_log import read_metrics
from tests.support.cluster import free_cpus, joining, run_on, wait_until_free
from tests.support.in_process import run_without_ray
from tests.support.jobs import only_run, start, wait_until
from tests.support.recipes import save_recipe, search_recipe, student_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NUM_KILLS = int(os.environ.get("GRADUS_TEST_KILLS", "2"))
NUM_STAGES = 4


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory) -> Path:
    return search_recipe(tiny_model, tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def reference(recipe, local_actors, tmp_path_factory) -> Path:
    """A search that nothing disturbs: one stage after another, in this process."""
    root = tmp_path_factory.mktemp("reference")
    run_without_ray(local_actors, search_replay.main, "--config", recipe, f"output.root={root}")
    return only_run(root)


@pytest.fixture(scope="module")
def killed(recipe, ray_address, ray_actors, moments, tmp_path_factory) -> Path:
    """The same search, two stages at a time, killed again and again, and resumed to its end."""
    root, arguments = tmp_path_factory.mktemp("killed"), ("--config", recipe)
    for _ in range(NUM_KILLS):
        free = free_cpus()
        kill_somewhere(root, moments, *arguments, env=joining(ray_address))
        wait_until_free(free)
        arguments = ("--resume", "latest")
    run_on(ray_address, ray_actors, search_replay.main, *arguments, f"output.root={root}")
    return only_run(root)


def kill_somewhere(root: Path, moments: random.Random, *arguments: object, env: dict[str, str]) -> None:
    """Start a search and kill its driver at some moment of its first or second stage, which may be their ends."""
    num_done = min(num_files(root, "results/*.json") + moments.randint(0, 1), NUM_STAGES - 2)
    num_tuners = num_files(root, "ray_tune/*")
    with start(*arguments, f"output.root={root}", script="jobs/search_replay.py", env=env) as process:
        try:
            wait_until(lambda: num_files(root, "ray_tune/*") > num_tuners, process)
            wait_until(lambda: num_files(root, "results/*.json") >= num_done, process)
            deadline = time.monotonic() + moments.uniform(0, 15)
            wait_until(
                lambda: time.monotonic() > deadline or num_files(root, "results/*.json") > num_done, process
            )  # stages of a fast machine end sooner, and the search must not end before it is killed
        finally:
            process.kill()


def num_files(root: Path, pattern: str) -> int:
    return len(list(root.glob(f"exp_*/{pattern}")))


def chains_of(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "chains.json").read_text())["chains"]


def test_each_stage_starts_from_what_its_parent_ended_with(killed):
    results = read_markers(killed / "results")
    assert len(results) == NUM_STAGES
    for chain in chains_of(killed):
        stages = [results[stage["key"]] for stage in chain["stages"]]
        for parent, child in pairwise(stages):
            assert parent["ended"] <= child["started"]
            assert child["started_from"] == parent["ended_with"] != child["ended_with"]
    assert {chain["status"] for chain in json.loads((killed / "outcome.json").read_text()).values()} == {"finished"}


def test_a_shared_stage_is_trained_once_and_linked_from_every_chain(reference, killed):
    for search in (reference, killed):
        chains = chains_of(search)
        assert len({chain["stages"][0]["key"] for chain in chains}) == 1
        shared = RunDirectory(search / chains[0]["stages"][0]["directory"])
        assert [row["step"] for row in read_metrics(shared.path)] == [1, 2]
        for chain in chains:
            links = search / "checkpoints" / chain["name"]
            assert (links / "level_1").resolve() == shared.checkpoints.stage_results()["level_1"]
            assert (links / "checkpoint_last").resolve().parent.parent.name == chain["stages"][-1]["key"]
    shared = RunDirectory(reference / chains_of(reference)[0]["stages"][0]["directory"])
    assert "continues from" not in (shared.logs / "learner_0.log").read_text()


def test_killed_at_random_moments_a_search_ends_with_the_same_table(reference, killed):
    assert chains_of(killed) == chains_of(reference)
    actual, expected = (json.loads((run / "summary.json").read_text()) for run in (killed, reference))
    assert actual["num_chains"] == expected["num_chains"] == {"finished": 3}
    for measure in ("tagged", "last_number"):
        assert actual[measure] == expected[measure]
    evaluations = {path.relative_to(reference): path for path in reference.glob("stages/*/samples/eval_*.jsonl")}
    assert len(evaluations) == NUM_STAGES + 1  # after every stage, and before the first
    for name, path in evaluations.items():
        assert (killed / name).read_bytes() == path.read_bytes(), name


def test_a_student_of_written_problems_is_compared_with_one_of_as_many_real_tokens(tiny_model, local_actors, tmp_path):
    recipe = student_recipe(tiny_model, tmp_path)
    run_without_ray(local_actors, search_replay.main, "--config", recipe, f"output.root={tmp_path / 'runs'}")
    run = only_run(tmp_path / "runs")
    stages = {chain["name"]: run / chain["stages"][0]["directory"] for chain in chains_of(run)}
    assert len(set(stages.values())) == 4
    tokens = [[row["num_tokens"] for row in read_metrics(stage)] for stage in stages.values()]
    assert len(tokens[0]) == 2 and tokens == [tokens[0]] * 4
    summary = json.loads((run / "summary.json").read_text())["tagged"]
    settings = [f"data={tmp_path}/student/{side}" for side in ("written", "real")]
    assert [row["setting"] for row in summary["settings"]] == settings
    assert all(set(row["gain"]["by_seed"]) == {"0", "1"} for row in summary["settings"])
    gained = summary["statements"][1]
    assert gained.startswith(f"Average accuracy gained in training: {settings[0]} +0.0 points [")


def test_optuna_draws_round_by_round_and_a_resumed_search_adds_to_its_draws(recipe, local_actors, tmp_path):
    drawn = {
        "grid": {},
        "baselines": [],
        "space": {"sft": {"learning_rate": {"loguniform": [1e-5, 1e-3]}}},
        "drawn_by": "optuna",
        "draws_per_round": 1,
        "num_draws": 2,
    }
    settings = yaml.safe_load(recipe.read_text())
    stages = [{"name": "sft", "kind": "sft"}]
    changed = save_recipe(
        tmp_path, {**settings, "stages": stages, "curriculum": {"replay_ratio": 0.0}, "search": drawn}
    )
    run_without_ray(local_actors, search_replay.main, "--config", changed, f"output.root={tmp_path / 'runs'}")
    run = only_run(tmp_path / "runs")
    rates = [chain["values"]["sft.learning_rate"] for chain in chains_of(run)]
    assert len(set(rates)) == 2 and all(1e-5 <= rate <= 1e-3 for rate in rates)
    before = {path: path.read_bytes() for path in run.glob("results/*.json")}
    run_without_ray(local_actors, search_replay.main, "--resume", run, "search.num_draws=3")
    assert [chain["values"]["sft.learning_rate"] for chain in chains_of(run)][:2] == rates and len(chains_of(run)) == 3
    assert len(read_markers(run / "results")) == 3
    assert all(path.read_bytes() == content for path, content in before.items())  # nothing is trained twice
