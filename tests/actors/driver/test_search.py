"""Curricula for real: chains and searches of a tiny model, on real Ray and real engines."""

import json
import os
import random
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.curriculum.markers import read_markers
from pipeline.curriculum.replay import ReplayBuffer, read_trained
from pipeline.runs.checkpoints import read_progress
from pipeline.runs.directory import RunDirectory
from pipeline.runs.metrics_log import read_metrics
from tests.support.jobs import killed_at, only_run, run_job, save_recipe, start
from tests.support.models import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NUM_KILLS = int(os.environ.get("GRADUS_TEST_KILLS", "2"))
CHAIN, SEARCH = "jobs/curriculum.py", "jobs/search_replay.py"
SIGNS = {"1": "+", "2": "-", "3": "*", "4": "/"}


def write_recipe(directory: Path, num_levels: int, **sections: Any) -> Path:
    """A curriculum on a tiny model in float32. It learns nothing that an evaluation would see."""
    levels = list(SIGNS)[:num_levels]
    for split, numbers in (("train", range(24)), ("test", range(24, 28))):
        rows = [
            {"question": f"{a} {SIGNS[level]} {a}?", "answer": f"so #### {a}", "level": level}
            for level in levels
            for a in numbers
        ]
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model": {"name": str(save_tiny_model(directory / "model")), "dtype": "float32", "device": "cpu"},
        "data": {"name": str(directory), "answer_format": "hash", "system_prompt": "", "fields": {"level": "level"}},
        "curriculum": {},
        "stages": [{"name": "level", "kind": "sft", "each_level": True}],
        "sft": {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-3, "lr_schedule": "linear"},
        "grpo": {"batch_size": 4, "num_generations": 2, "num_steps": 2, "learning_rate": 1e-3},
        "rollout": {"max_prompt_length": 64, "max_completion_length": 8, "memory_gib": 1.5, "num_cpus": 0.4},
        "reward": {"functions": [{"name": "tests.support.models:letter_reward"}]},
        "learner": {"tokens_per_micro_batch": 256, "num_cpus": 0.4, "memory_gib": 1.0},
        "eval": {"problems_per_level": 4, "max_completion_length": 8},
        "checkpoint": {"every_steps": 1},
        **sections,
    }
    return save_recipe(directory, settings)


# One chain ---------------------------------------------------------------------------------------

PROMOTION = {"threshold": 0.9, "patience": 1, "max_repeats": 1, "every_steps": 2}
STAGES = ["level_1", "level_2", "rl"]


@pytest.fixture(scope="module")
def chain_recipe(tmp_path_factory) -> Path:
    """Two levels of SFT, each stopped after two of its four steps and repeated once, and a GRPO stage."""
    stages = [{"name": "level", "kind": "sft", "each_level": True}, {"name": "rl", "kind": "grpo"}]
    curriculum = {"replay_ratio": 0.25, "promotion": PROMOTION}
    return write_recipe(tmp_path_factory.mktemp("chain"), 2, stages=stages, curriculum=curriculum)


@pytest.fixture(scope="module")
def chain(chain_recipe, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("chain_run")
    run_job("--config", chain_recipe, f"output.root={root}", script=CHAIN)
    return only_run(root)


def test_sft_stages_and_a_grpo_stage_are_one_run(chain):
    rows = read_metrics(chain)
    assert [row["stage"] for row in rows] == ["level_1"] * 4 + ["level_2"] * 4 + ["rl"] * 2
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert sorted(path.stem for path in (chain / "eval").iterdir()) == ["before", *STAGES]
    links = {path.name: path.resolve().name for path in (chain / "checkpoints").iterdir() if path.is_symlink()}
    assert read_progress(chain / "checkpoints" / links.pop("checkpoint_best")).stage == "rl"
    assert links == {
        "level_1": "step_000004_done",
        "level_2": "step_000008_done",
        "rl": "step_000010_done",
        "checkpoint_last": "step_000010_done",
    }
    for parent, child in pairwise(STAGES):
        ended, started = (read_progress(chain / "checkpoints" / name) for name in (parent, child))
        assert started.started_from == ended.ended_with != started.ended_with


def test_a_share_of_what_a_stage_trains_on_is_replayed_and_measured_apart(chain):
    rows = read_metrics(chain)
    replayed = [[row.get("num_replayed", 0) for row in rows if row["stage"] == stage] for stage in STAGES]
    assert replayed == [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1]]  # a quarter of 16 and of 8 examples, evenly
    for row in rows[4:8]:
        tokens = row["loss"] * 4  # every solution is "so #### n" and an end: lengths differ by a digit at most
        assert row["loss_new"] * 3 + row["loss_replayed"] == pytest.approx(tokens, rel=0.1)
    assert all(row["reward_mean_new"] * 3 + row["reward_mean_replayed"] == pytest.approx(row["reward_mean"] * 4)
               for row in rows[8:])  # fmt: skip
    states = [json.loads((chain / "checkpoints" / stage / "replay.json").read_text()) for stage in STAGES]
    levels = [{level for _, level in state["trained"]} for state in states]
    assert levels == [{"1"}, {"1", "2"} & {"2"}, {"1", "2"}]
    first, second, third = (state["buffer"] for state in states)
    assert first is None
    trained = [read_trained(chain / "checkpoints" / stage) for stage in STAGES]
    assert second == json.loads(json.dumps(ReplayBuffer(5000).add(trained[0]).to_state()))
    assert third == json.loads(json.dumps(ReplayBuffer(5000).add(trained[0] + trained[1]).to_state()))
    assert len(trained[0]) == 16 and len(trained[1]) == 12


def test_a_stage_that_misses_its_threshold_is_repeated_with_its_schedule(chain):
    rates = [row["learning_rate"] for row in read_metrics(chain) if row["stage"] == "level_1"]
    assert rates[:2] == rates[2:] and rates[0] != rates[1]
    progress = read_progress(chain / "checkpoints" / "level_1")
    assert (progress.num_repeats, progress.pass_start, len(progress.level_accuracies)) == (1, 2, 2)


def test_a_chain_killed_while_it_replays_ends_the_same(chain_recipe, chain, tmp_path):
    killed_at(7, tmp_path, "--config", chain_recipe, script=CHAIN)
    run_job("--resume", "latest", f"output.root={tmp_path}", script=CHAIN)
    resumed = only_run(tmp_path)
    for key in ("step", "stage", "loss", "learning_rate", "num_replayed", "reward_mean"):
        assert [row.get(key) for row in read_metrics(resumed)] == [row.get(key) for row in read_metrics(chain)], key
    for name in [f"checkpoints/{stage}/replay.json" for stage in STAGES] + ["samples/eval_rl.jsonl"]:
        assert (resumed / name).read_bytes() == (chain / name).read_bytes(), name


# A search ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def search_recipe(tmp_path_factory) -> Path:
    """Three chains of four stages, of which the first is the same for all: ten different ones."""
    search = {"grid": {"curriculum": {"replay_ratio": [0.0, 0.25, 0.5]}}, "baselines": [], "max_concurrent_stages": 2}
    sft = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-3}
    return write_recipe(tmp_path_factory.mktemp("search"), 4, search=search, sft=sft)


@pytest.fixture(scope="module")
def search(search_recipe, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("search_run")
    run_job("--config", search_recipe, f"output.root={root}", script=SEARCH)
    return only_run(root)


def chains_of(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "chains.json").read_text())["chains"]


def test_stages_run_side_by_side_and_each_starts_from_what_its_parent_ended_with(search):
    results = read_markers(search / "results")
    assert len(results) == 10
    for chain in chains_of(search):
        stages = [results[stage["key"]] for stage in chain["stages"]]
        assert len(stages) == 4
        for parent, child in pairwise(stages):
            assert parent["ended"] <= child["started"]
            assert child["started_from"] == parent["ended_with"] != child["ended_with"]
    spans = [(result["started"], result["ended"]) for result in results.values()]
    assert any(a is not b and a[0] < b[1] and b[0] < a[1] for a in spans for b in spans)
    assert {found["status"] for found in json.loads((search / "outcome.json").read_text()).values()} == {"finished"}


def test_a_shared_stage_is_trained_once_and_linked_from_every_chain(search):
    chains = chains_of(search)
    assert len({chain["stages"][0]["key"] for chain in chains}) == 1
    shared = RunDirectory(search / chains[0]["stages"][0]["directory"])
    assert [row["step"] for row in read_metrics(shared.path)] == [1, 2]
    assert (shared.logs / "learner_0.log").read_text().count("continues from") == 0
    for chain in chains:
        level_1 = shared.checkpoints.stage_results()["level_1"]
        assert (search / "checkpoints" / chain["name"] / "level_1").resolve() == level_1
        assert (search / "checkpoints" / chain["name"] / "checkpoint_last").resolve().parent.parent.name == (
            chain["stages"][-1]["key"]
        )


def test_killed_at_random_moments_a_search_ends_with_the_same_table(search_recipe, search, tmp_path):
    moments, num_killed = random.Random(time.time_ns()), 0
    arguments: tuple[object, ...] = ("--config", search_recipe)
    for _ in range(NUM_KILLS):
        with start(*arguments, f"output.root={tmp_path}", script=SEARCH) as process:
            while not list(tmp_path.glob("exp_*/chains.json")):
                time.sleep(0.1)
            try:
                process.wait(timeout=moments.uniform(0, 60))
            except subprocess.TimeoutExpired:
                process.kill()
                num_killed += 1
        arguments = ("--resume", "latest")
    assert num_killed > 0
    run_job(*arguments, f"output.root={tmp_path}", script=SEARCH)
    resumed = only_run(tmp_path)
    assert chains_of(resumed) == chains_of(search)
    resumed_summary, summary = (json.loads((run / "summary.json").read_text()) for run in (resumed, search))
    assert resumed_summary["num_chains"] == summary["num_chains"] == {"finished": 3}
    for measure in ("tagged", "last_number"):
        assert resumed_summary[measure] == summary[measure]
    expected = {path.relative_to(search): path for path in search.glob("stages/*/samples/eval_*.jsonl")}
    assert len(expected) == 10 + 1  # after every stage, and before the first
    for name, path in expected.items():
        assert (resumed / name).read_bytes() == path.read_bytes(), name
