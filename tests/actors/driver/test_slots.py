"""The actors of a search: a stage that failed does not leave a dead engine to the next one. Starts no Ray."""

from typing import Any

import pytest

from actors.driver.search import SlotActors, Slots
from actors.driver.tune_searcher import StageSearcher
from actors.handles import ActorHandles
from pipeline.curriculum.stage_queue import StageQueue
from tests.support.searches import lanes


@pytest.fixture
def killed(monkeypatch) -> list[str]:
    actors: list[str] = []
    monkeypatch.setattr("ray.kill", actors.append)
    return actors


def actors(number: int) -> SlotActors:
    """Names in place of handles."""
    names: Any = [f"{name} {number}" for name in ("engine", "grader", "store")]
    return SlotActors(ActorHandles((names[0],), (names[1],), names[2]), f"learners {number}")


def test_replaced_actors_are_killed_and_the_new_ones_have_a_number_of_their_own(killed):
    """Names and log files of actors contain it, and those of the killed ones are not free at once."""
    slots = Slots(actors, 2)
    slots.replace(0)
    slots.replace(0)
    assert killed == [f"{name} {number}" for number in (0, 2) for name in ("learners", "engine", "grader", "store")]
    assert [slots.actors(slot) for slot in range(len(slots))] == [actors(3), actors(1)]


def test_a_slot_whose_stage_failed_gets_new_actors_before_its_next_stage(killed):
    searcher = StageSearcher(StageQueue(lanes(3, 2)), Slots(actors, 2))

    def start(trial: str) -> Any:
        suggested = searcher.suggest(trial)
        assert isinstance(suggested, dict)
        return suggested["actors"]

    assert [start("a"), start("b")] == [actors(0), actors(1)]
    searcher.on_trial_complete("a", {"score": 0.5})
    assert start("c") == actors(0) and not killed
    searcher.on_trial_complete("b", error=True)
    assert not killed  # nothing may be left to do
    assert start("d") == actors(2) and killed == ["learners 1", "engine 1", "grader 1", "store 1"]
    searcher.on_trial_complete("d", {"score": 0.5})
    assert start("e") == actors(2)
