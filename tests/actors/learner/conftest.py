"""One real engine and one grader for all tests of the loops."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.handles import ActorHandles
from actors.reward import RewardWorker
from pipeline.config import ModelConfig, RewardConfig, RolloutConfig
from tests.support.loops import LocalHandle, LocalStore
from tests.support.models import save_tiny_model

TERMS = [{"name": "tests.support.models:letter_reward"}, {"name": "format", "weight": 0.5}]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def local_actors(tiny_model) -> Iterator[ActorHandles]:
    from actors.rollout import RolloutWorker

    store = LocalStore()
    config = RolloutConfig(kv_cache_gib=1.0, num_threads=1)
    model = ModelConfig(name=str(tiny_model), dtype="float32", device="cpu")
    engine = RolloutWorker(config, model, max_model_len=96, max_num_seqs=32, pull=store.pull)
    grader = RewardWorker(RewardConfig.model_validate({"functions": TERMS, "num_children": 1}))
    yield ActorHandles((LocalHandle(engine),), (LocalHandle(grader),), LocalHandle(store))
    grader.close()
    engine.close()
