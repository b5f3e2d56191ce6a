from types import SimpleNamespace
from typing import Any

from actors.driver import start
from actors.driver.start import stop_actors
from actors.handles import ActorHandles


def test_engines_of_frozen_models_end_with_the_others(monkeypatch):
    killed: list[Any] = []
    monkeypatch.setattr(start, "ray", SimpleNamespace(kill=killed.append))
    engine: Any = "engine"
    grader: Any = "grader"
    store: Any = "store"
    frozen: Any = "frozen"
    stop_actors(ActorHandles((engine,), (grader,), store, {"teacher": frozen}))
    assert sorted(killed) == ["engine", "frozen", "grader", "store"]
