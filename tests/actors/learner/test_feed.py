"""Stages reach all learner workers in order, and the group ends when its feed does. Starts no Ray."""

import asyncio
from types import SimpleNamespace
from typing import Any

from actors.learner import feed, stages
from actors.learner.feed import StageFeed, learn_stages


def test_a_stage_is_handed_out_once_it_is_there_and_counts_once_all_workers_trained_it(monkeypatch):
    monkeypatch.setattr(feed, "POLL_S", 0.01)

    async def answers() -> list[Any]:
        stage_feed = StageFeed(num_workers=2)
        seen: list[Any] = [await stage_feed.stage(0)]
        await stage_feed.put(["first"])
        seen += [await stage_feed.stage(0), await stage_feed.is_trained(0)]
        await stage_feed.report()
        seen.append(await stage_feed.is_trained(0))
        await stage_feed.report()
        seen += [await stage_feed.is_trained(0), await stage_feed.is_trained(1)]
        return seen

    assert asyncio.run(answers()) == [None, ["first"], False, False, True, False]


def test_a_worker_that_waits_gets_the_stage_at_once():
    async def waited() -> Any:
        stage_feed = StageFeed(num_workers=1)
        waiting = asyncio.create_task(stage_feed.stage(0))
        await asyncio.sleep(0)
        await stage_feed.put(["first"])
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(waited()) == ["first"]


def test_a_worker_trains_stage_after_stage_until_the_feed_ends(monkeypatch):
    """The first is not there yet at its first look."""
    trained: list[str] = []
    setups: dict[int, list[Any]] = {
        0: [None, ["first"]],
        1: [["second"]],
        2: [[]],
    }
    remote = {
        "stage": lambda index: setups[index].pop(0),
        "report": lambda: trained.append("reported"),
    }
    handle = SimpleNamespace(**{name: SimpleNamespace(remote=call) for name, call in remote.items()})
    monkeypatch.setattr(feed, "ray", SimpleNamespace(get=lambda answer, timeout: answer))
    monkeypatch.setattr(stages, "prepare", lambda: None)
    monkeypatch.setattr(stages, "train_stage", trained.append)
    learn_stages({"feed": handle})
    assert trained == ["first", "reported", "second", "reported"]
