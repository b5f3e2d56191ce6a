from types import SimpleNamespace
from typing import Any

import pytest

from actors.learner import gauges
from actors.learner.gauges import Gauges


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Name, value and tags of everything that gauges were set to."""
    values: list[Any] = []

    def gauge(name: str, description: str, tag_keys: tuple[str, ...]) -> SimpleNamespace:
        return SimpleNamespace(set=lambda value, tags: values.append((name, value, tags)))

    monkeypatch.setattr(gauges, "Gauge", gauge)
    return values


def test_every_number_of_a_row_is_a_gauge_with_run_and_stage(shown):
    Gauges("exp_1").set({"step": 3, "stage": "rl", "kind": "grpo", "reward/correctness": 1.5, "eval_loss": None})
    tags = {"run": "exp_1", "stage": "rl"}
    assert shown == [("gradus_step", 3, tags), ("gradus_reward_correctness", 1.5, tags)]
