"""Actors that the tests of a session share: in this process, and on one Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.handles import ActorHandles
from actors.reward import RewardWorker
from pipeline.config import Config, ModelConfig, RolloutConfig
from tests.support.cluster import RayActors, private_ray, start_ray_actors
from tests.support.loops import LocalHandle, LocalStore
from tests.support.models import save_tiny_model
from tests.support.recipes import GRADER, MAX_MODEL_LEN


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def local_actors(tiny_model) -> Iterator[ActorHandles]:
    """One real engine and one grader in this process."""
    from actors.rollout import RolloutWorker

    store = LocalStore()
    config = RolloutConfig(kv_cache_gib=1.0, num_threads=1)
    model = ModelConfig(name=str(tiny_model), dtype="float32", device="cpu")
    engine = RolloutWorker(config, model, max_model_len=MAX_MODEL_LEN, max_num_seqs=32, pull=store.pull)
    grader = RewardWorker(Config.model_validate(GRADER))
    yield ActorHandles((LocalHandle(engine),), (LocalHandle(grader),), LocalHandle(store))
    grader.close()
    engine.close()


@pytest.fixture(scope="package")
def ray_address() -> Iterator[str]:
    """A Ray that this process is connected to, for all tests of this package."""
    with private_ray() as address:
        yield address


@pytest.fixture(scope="package")
def ray_actors(ray_address, tiny_model, tmp_path_factory) -> RayActors:
    """Two engines, a grader and two weight stores on that Ray."""
    return start_ray_actors(tiny_model, tmp_path_factory.mktemp("actors"))
