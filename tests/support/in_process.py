"""Whole jobs in this process, without Ray: actors are plain objects, and stages run one after another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from actors.driver import engines as engine_actors
from actors.driver import evaluate, launch, search
from actors.handles import ActorHandles
from actors.learner.setup import StageSetup
from actors.learner.stages import train_stage
from pipeline.config import ModelConfig
from pipeline.curriculum.stage_queue import StageQueue
from pipeline.runs.logs import log_files_closed
from tests.support.loops import LocalHandle, without_ray

Main = Callable[[list[str]], object]
Engines = dict[tuple[Any, ...], LocalHandle]
"""By name, model and limits."""


def run_without_ray(actors: ActorHandles, main: Main, *arguments: object) -> None:
    """Run a training job."""
    with _no_cluster(launch, search) as patch:
        for module in (launch, search):
            patch.setattr(module, "fit_stage", _train)
        patch.setattr(launch, "start_actors", lambda *_: actors)
        patch.setattr(launch, "Learners", _NoLearners)
        patch.setattr(search, "_start_slot", lambda *_: search.SlotActors(actors, None))
        patch.setattr(search.Slots, "close", lambda self: None)
        patch.setattr(search, "count_slots", lambda plan: 1)
        patch.setattr(search, "_fit", _run_stages)
        main([str(argument) for argument in arguments])


def evaluate_without_ray(engines: Engines, main: Main, *arguments: object) -> None:
    """Run an evaluation.

    Args:
        engines: used where they fit; others are added. They are dropped, not closed: closing one engine ends what all
            engines of a process share.
    """
    with _no_cluster(evaluate) as patch:
        patch.setattr(engine_actors, "make_actor", partial(_local_engine, engines))
        patch.setattr(engine_actors, "reserve", lambda actors, limit_s: None)
        patch.setattr(engine_actors, "ray", SimpleNamespace(kill=lambda engine: None))
        main([str(argument) for argument in arguments])


@contextmanager
def _no_cluster(*modules: Any) -> Iterator[pytest.MonkeyPatch]:
    with without_ray(), pytest.MonkeyPatch.context() as patch, log_files_closed():
        for module in modules:
            patch.setattr(module, "connected_ray", nullcontext)
            patch.setattr(module, "wait_for_room", lambda actors, limit_s: None)
        yield patch


def _train(setup: StageSetup, train: object) -> None:
    train_stage(setup)


class _NoLearners:
    """Stands for Learners, which start no process here."""

    train = None

    def __init__(self, *arguments: object) -> None:
        pass

    def start(self, config: object) -> None:
        pass

    def close(self) -> None:
        pass


def _run_stages(queue: StageQueue, shared: search.SharedByTrials, slots: search.Slots) -> None:
    """All stages of a search in the queue's order, one at a time."""
    while not queue.is_over:
        stage = queue.ready()[0]
        queue.start(stage.key)
        reported: list[dict[str, float]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tune, "report", reported.append)
            search.run_stage({"stage": {"chain": stage.chain, "index": stage.index}, "actors": slots.actors(0)}, shared)
        queue.finish(stage.key, reported[-1]["score"])


def _local_engine(engines: Engines, worker: type, directory: Path, log_name: str, **options: Any) -> Any:
    def remote(config: Any, model: ModelConfig, *arguments: Any) -> LocalHandle:
        *limits, pull, _ = arguments
        key = (log_name, model.name, *limits)
        if key not in engines:
            engines[key] = LocalHandle(worker(config, model, *limits, pull))
        return engines[key]

    return SimpleNamespace(remote=remote)
