"""The order of dependent trials, on a real Tuner with stages that train nothing."""

import hashlib
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.curriculum.halving import QueuedChain, Rung
from pipeline.curriculum.markers import read_markers, write_marker
from pipeline.curriculum.stage_queue import StageQueue

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHAINS = [
    QueuedChain("a", ("s1", "s2", "a3", "a4")),
    QueuedChain("b", ("s1", "s2", "b3", "b4")),
    QueuedChain("c", ("s1", "c2", "c3", "c4")),
]
KEYS = {key for chain in CHAINS for key in chain.keys}
PARENT = {key: parent for chain in CHAINS for parent, key in pairwise(("start", *chain.keys))}
SCORES = {"s2": 0.2, "c2": 0.8}


def run_stage(config: dict[str, Any]) -> None:
    """A stage whose weights are a hash of its parent's. Leaves one record for every time it ran."""
    import ray
    from ray import tune

    directory, key = Path(config["directory"]), config["stage"]["key"]
    started, parent, actor = time.time(), PARENT[key], ray.get(config["actors"].name.remote(), timeout=60)
    before = (directory / f"{parent}.weights").read_text()
    attempt = len(list(directory.glob(f"{key}.*.run")))
    wait_for_the_other(directory, config.get("side_by_side", []), key)
    (directory / f"{key}.weights").write_text(trained(before, key))
    ended = time.time()
    (directory / f"{key}.{attempt}.run").write_text(
        json.dumps({"before": before, "started": started, "ended": ended, "actor": actor})
    )
    if attempt < config["failures"].get(key, 0):
        raise RuntimeError(f"{key} fails")
    write_marker(directory / "markers", key, {"score": SCORES.get(key, 0.5)})
    tune.report({"score": SCORES.get(key, 0.5)})


def wait_for_the_other(directory: Path, pair: list[str], key: str) -> None:
    """Two stages that must run at the same time each wait until the other has started."""
    if key not in pair:
        return
    (directory / f"{key}.started").touch()
    deadline = time.monotonic() + 120
    while not all((directory / f"{other}.started").exists() for other in pair):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{pair} did not run side by side")
        time.sleep(0.05)


def trained(weights: str, key: str) -> str:
    return hashlib.sha256(f"{weights} {key}".encode()).hexdigest()


class Named:
    """An actor that says its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


class TwoSlots:
    """An actor for each of two stages at a time. A replaced one is dead."""

    def __init__(self) -> None:
        import ray

        self._start = ray.remote(num_cpus=0)(Named).remote
        self._actors = [self._start("first"), self._start("second")]

    def __len__(self) -> int:
        return len(self._actors)

    def actors(self, slot: int) -> Any:
        return self._actors[slot]

    def replace(self, slot: int) -> None:
        import ray

        ray.kill(self._actors[slot])
        self._actors[slot] = self._start("replaced")


def fit(search: StageQueue, directory: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    """All trials of a search; how every stage ran, by key and attempt."""
    from ray import tune

    from actors.driver.tune_searcher import StageSearcher

    directory.mkdir(exist_ok=True)
    (directory / "start.weights").write_text("untrained")
    tuner = tune.Tuner(
        tune.with_resources(run_stage, {"CPU": 0.5}),
        param_space={"directory": str(directory), "failures": {}, **settings},
        tune_config=tune.TuneConfig(search_alg=StageSearcher(search, TwoSlots()), num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(name=f"tune_{time.time_ns()}", storage_path=str(directory), verbose=0),
    )
    tuner.fit()
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.run"))}


def test_no_stage_starts_before_its_parent_ended_and_shared_ones_run_once(ray_address, tmp_path):
    search = StageQueue(CHAINS)
    runs = fit(search, tmp_path, side_by_side=["s2", "c2"])
    assert set(runs) == {f"{key}.0" for key in KEYS}  # 9 stages of 3 chains x 4, each once
    weights = {"start": "untrained"}
    for chain in CHAINS:
        for parent, key in pairwise(("start", *chain.keys)):
            run = runs[f"{key}.0"]
            assert run["before"] == weights[parent], f"{key} did not start from the weights of {parent}"
            assert parent == "start" or runs[f"{parent}.0"]["ended"] <= run["started"]
            weights[key] = trained(weights[parent], key)
    assert runs["s2.0"]["started"] < runs["c2.0"]["ended"] and runs["c2.0"]["started"] < runs["s2.0"]["ended"]
    assert {name: chain["status"] for name, chain in search.outcome().items()} == dict.fromkeys("abc", "finished")


def test_failed_stages_are_retried_and_a_chain_that_keeps_failing_ends_alone(ray_address, tmp_path):
    search = StageQueue(CHAINS, max_retries=1)
    runs = fit(search, tmp_path, failures={"s1": 1, "b3": 9})
    assert {"s1.0", "s1.1", "b3.0", "b3.1"} <= set(runs)
    assert runs["s1.0"]["actor"] == "first" and "replaced" in {run["actor"] for run in runs.values()}
    assert not {"s1.2", "b3.2", "b4.0"} & set(runs)
    assert [chain["status"] for chain in search.outcome().values()] == ["finished", "failed", "finished"]
    assert set(read_markers(tmp_path / "markers")) == KEYS - {"b3", "b4"}


def test_a_search_resumes_from_its_markers_and_a_rung_stops_the_weak(ray_address, tmp_path):
    for key in ("s1", "s2"):
        write_marker(tmp_path / "markers", key, {"score": SCORES.get(key, 0.5)})
        (tmp_path / f"{key}.weights").write_text(key)
    search = StageQueue(CHAINS, [Rung(2, keep=1)])
    search.restore({key: result["score"] for key, result in read_markers(tmp_path / "markers").items()})
    runs = fit(search, tmp_path)
    assert set(runs) == {"c2.0", "c3.0", "c4.0"}
    assert [chain["status"] for chain in search.outcome().values()] == ["stopped", "stopped", "finished"]
