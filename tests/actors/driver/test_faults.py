"""A run goes on whatever dies: engine, grader, weight store, one learner of two; and if an engine raises. Its ledger
accounts for every group once.

The driver is killed in test_launch.py, whole evaluations and searches in their own tests. tests/benchmarks/kills.py
kills more often, in every mode.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from actors.handles import ActorHandles
from jobs import grpo_qwen
from pipeline.config import load_config
from pipeline.runs.ledger import read_ledger
from pipeline.runs.ledger_check import check_ledger
from pipeline.runs.metrics_log import read_metrics
from pipeline.runs.replay import first_difference
from tests.support.cluster import RayActors, run_on, start_engine
from tests.support.in_process import run_without_ray
from tests.support.jobs import only_run, step_of
from tests.support.recipes import grpo_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_STEPS = 12
LIMIT_S = 300.0
"""Until the next step. On an idle machine it takes 4 to 25 s."""


def kill(handle: Any) -> None:
    """Kill the process of an actor, whatever it is doing."""
    pid = ray.get(handle.__ray_call__.remote(lambda actor: os.getpid()), timeout=LIMIT_S)
    os.kill(pid, signal.SIGKILL)


def raise_in_next_step(handle: Any) -> None:
    """Let the engine's next model step raise, while requests are unfinished."""

    def break_engine(worker: Any) -> None:
        def step() -> None:
            raise RuntimeError("injected")

        worker._loop._engine._engine.step = step

    ray.get(handle.__ray_call__.remote(break_engine), timeout=LIMIT_S)


def kill_learner(actors: ActorHandles) -> None:
    """Kill the last learner."""
    own = psutil.Process().children(recursive=True)
    learners = [process for process in own if "ray::RayTrainWorker" in " ".join(process.cmdline())]
    learners[-1].kill()


KILLS: dict[str, Callable[[ActorHandles], None]] = {
    "engine": lambda actors: kill(actors.rollout_workers[-1]),
    "grader": lambda actors: kill(actors.reward_workers[0]),
    "weight store": lambda actors: kill(actors.weight_store),
    "learner": kill_learner,
}
FAULTS = {"exception in an engine": lambda actors: raise_in_next_step(actors.rollout_workers[0]), **KILLS}


@dataclass(frozen=True)
class Survivor:
    run: Path
    reference: Path
    seconds: dict[str, float]
    """From each fault to the next step."""


@pytest.fixture(scope="module")
def survivor(tiny_model, local_actors, ray_address, ray_actors, tmp_path_factory) -> Survivor:
    """A run in which everything fails in turn, and one of the same recipe that nothing disturbs."""
    recipe = grpo_recipe(tiny_model, tmp_path_factory.mktemp("data"), grpo={"num_steps": NUM_STEPS})
    undisturbed, root = tmp_path_factory.mktemp("reference"), tmp_path_factory.mktemp("faults")
    run_without_ray(local_actors, grpo_qwen.main, "--config", recipe, f"output.root={undisturbed}")
    seconds: dict[str, float] = {}
    injector = threading.Thread(target=inject, args=(root, ray_actors.pair, seconds), daemon=True)
    injector.start()
    two = ["learner.num_workers=2", "rollout.num_workers=2", f"limits.engine_s={LIMIT_S}"]
    run_on(ray_address, ray_actors, grpo_qwen.main, "--config", recipe, f"output.root={root}", *two)
    injector.join(10)
    return Survivor(only_run(root), only_run(undisturbed), seconds)


def inject(root: Path, actors: ActorHandles, seconds: dict[str, float]) -> None:
    """Every fault after two more steps."""
    for index, (name, fault) in enumerate(FAULTS.items()):
        wait_for_step(root, 2 * index + 1)
        fault(actors)
        started, reached = time.monotonic(), step_of(root)
        wait_for_step(root, reached + 1)
        seconds[name] = time.monotonic() - started


def wait_for_step(root: Path, step: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while step_of(root) < step:
        assert time.monotonic() < deadline, f"step {step} was not reached"
        time.sleep(0.05)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_run_goes_on_after(fault, survivor):
    assert survivor.seconds[fault] < LIMIT_S


def test_nothing_is_trained_twice_and_nothing_is_skipped(survivor):
    rows, expected = read_metrics(survivor.run), read_metrics(survivor.reference)
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    for row, undisturbed in zip(rows, expected, strict=True):
        for key in ("loss", "reward_mean", "completion_length_mean", "grad_norm", "kl"):
            assert row[key] == pytest.approx(undisturbed[key], rel=1e-3, abs=1e-5), (row["step"], key)


def test_the_ledger_accounts_for_every_group_once(survivor):
    ledger = check_ledger(survivor.run)
    assert ledger is not None and (ledger.violations, ledger.num_steps) == ([], NUM_STEPS)


@pytest.fixture(params=[False, True], ids=["between requests", "in flight"])
def ahead(request, tiny_model, ray_actors, tmp_path) -> Iterator[tuple[Path, RayActors]]:
    """A recipe of engines that work ahead, and one such engine: it loads weights at the moments named."""
    settings = {"max_staleness": 1, "prompts_per_chunk": None, "in_flight_updates": request.param}
    recipe = grpo_recipe(tiny_model, tmp_path, grpo={"num_steps": NUM_STEPS}, rollout=settings)
    config = load_config(recipe, [])
    engine = start_engine(config, ray_actors.directory, f"engine_ahead_{request.param}", ray_actors.pull)
    yield recipe, replace(ray_actors, slots=(replace(ray_actors.slots[0], rollout_workers=(engine,)),))
    ray.kill(engine)


def test_a_killed_run_of_engines_that_work_ahead_replays_to_the_bits(
    ahead, local_actors, ray_address, moments, tmp_path
):
    recipe, actors = ahead
    names = moments.sample(["engine", "grader", "weight store", "learner"], 2)

    def kill_twice() -> None:
        for index, name in enumerate(names):
            wait_for_step(tmp_path, 5 * index + 1)
            time.sleep(moments.uniform(0, 1))
            KILLS[name](actors.slots[0])

    killer = threading.Thread(target=kill_twice, daemon=True)
    killer.start()
    run_on(ray_address, actors, grpo_qwen.main, "--config", recipe, f"output.root={tmp_path}")
    killer.join(10)
    run, again = only_run(tmp_path), tmp_path / "again"
    ledger = check_ledger(run)
    assert ledger is not None and (ledger.violations, ledger.num_steps) == ([], NUM_STEPS), names
    assert any(row.oldest_version < row.step - 1 for row in read_ledger(run))
    replay = ["--config", recipe, f"output.root={again}", f"rollout.replay={run}"]
    run_without_ray(local_actors, grpo_qwen.main, *replay)
    assert first_difference(only_run(again), run) is None, names
    assert not killer.is_alive()


def test_every_step_proves_that_the_engines_had_its_weights(survivor):
    for rows in (read_metrics(survivor.run), read_metrics(survivor.reference)):
        assert all(len(row["weights_checksum"]) == 16 for row in rows)
        assert all(row["engine_probe_diff"] < 1e-3 for row in rows)  # float32 on both sides


def test_the_engine_that_raised_says_why_in_its_log(survivor, ray_actors):
    logs = {path.name: path.read_text() for path in log_directory(ray_actors).glob("engine_*.log")}
    assert any("an engine failed, so its process ends" in text and "injected" in text for text in logs.values())


def log_directory(ray_actors: Any) -> Path:
    return Path(ray_actors.directory) / "logs"
