"""The learner loops in this process, without Ray: actors are plain objects, and a crash is an exception."""

import asyncio
import gc
import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
import ray.train

from actors import calls
from actors.driver.encode import make_tokens
from actors.driver.plan import plan_run
from actors.driver.stage import stage_setup
from actors.engine_loop import is_as_new
from actors.handles import ActorHandles
from actors.learner import recorder
from actors.learner.stages import train_stage
from actors.weights import PackedWeights
from pipeline.config import Config
from pipeline.runs.directory import RunDirectory
from pipeline.types import WeightId
from tests.support.data import write_jsonl


class Crash(Exception):
    """Stands for the death of a learner process."""


@dataclass(frozen=True)
class LocalRef:
    """Stands for an object reference: the answer of a call that was carried out at once."""

    answer: Callable[[], Any]


class LocalHandle:
    """Stands for an actor handle: ``handle.method.remote(...)`` calls the object's method at once."""

    def __init__(self, actor: object) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._actor, name)

        def remote(*arguments: Any, **named: Any) -> LocalRef:
            given = [each.answer() if isinstance(each, LocalRef) else each for each in arguments]
            try:
                answer = method(*given, **named)
                if inspect.iscoroutine(answer):
                    answer = asyncio.run(answer)
            except Exception as error:
                return LocalRef(partial(_fail, error))
            return LocalRef(lambda: answer)

        return SimpleNamespace(remote=remote)


def _fail(error: Exception) -> None:
    raise ray.exceptions.RayTaskError("remote", str(error), error)


class LocalStore:
    """A weight store that keeps its weights itself."""

    def __init__(self) -> None:
        self._attempt = 0
        self.held: tuple[WeightId, PackedWeights] | None = None

    def next_attempt(self) -> int:
        self._attempt += 1
        return self._attempt

    def publish(self, weight_id: WeightId, weights: PackedWeights) -> None:
        self.held = weight_id, weights

    def pull(self, weight_id: WeightId) -> tuple[WeightId, PackedWeights]:
        assert self.held is not None and is_as_new(self.held[0], weight_id)
        return self.held


def local_ray() -> Any:
    """Stands for the ``ray`` that actors/calls.py uses."""

    def wait(refs: list[LocalRef], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        return refs, []

    def get(ref: LocalRef, timeout: float) -> Any:
        return ref.answer()

    def put(value: Any) -> LocalRef:
        return LocalRef(lambda: value)

    return SimpleNamespace(wait=wait, get=get, put=put, exceptions=ray.exceptions)


@contextmanager
def without_ray() -> Iterator[None]:
    """Within the block calls to actors, the learners' gauges and Ray Train's report work without Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "ray", local_ray())
        patch.setattr(ray.train, "report", lambda metrics: None)
        patch.setattr(recorder, "Gauges", lambda name: SimpleNamespace(set=lambda row: None))
        yield


def run_loops(config: Config, actors: ActorHandles, run: RunDirectory | None = None) -> RunDirectory:
    """Train all stages that are not done, like ``actors.driver.launch.run``."""
    (chain,) = plan_run(config).chains
    run = run or RunDirectory.create(chain.spec.config)
    tokens = make_tokens(chain.problems, config.model, chat=config.data.uses_chat_template)
    done, since = run.checkpoints.stage_results(), time.time()
    with without_ray():
        for index, stage in enumerate(chain.stages):
            if stage.spec.name in done:
                continue
            earlier = list(run.checkpoints.stage_results().values())
            is_last = index == len(chain.stages) - 1
            setup = stage_setup(chain, index, run.path, tokens, earlier, actors, is_last=is_last, since=since)
            train_stage(setup)
    return run


def run_loops_crashing_after(
    step: int, config: Config, actors: ActorHandles, run: RunDirectory | None = None
) -> RunDirectory:
    """Train until the metrics of this step are written, and crash before anything else happens.

    Args:
        run: to continue with. None: a new one.
    """
    write = recorder.StepRecorder.step

    def write_and_crash(self: recorder.StepRecorder, progress: Any, *arguments: Any) -> None:
        write(self, progress, *arguments)
        if progress.step == step:
            raise Crash

    run = run or RunDirectory.create(config)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(recorder.StepRecorder, "step", write_and_crash)
        warnings.simplefilter("ignore", ResourceWarning)  # a dead process lets go of its files and the run's lock
        with pytest.raises(Crash):
            run_loops(config, actors, run)
        gc.collect()
    return run


def write_splits(directory: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The same rows as training and as held-out data."""
    for split in ("train", "test"):
        write_jsonl(directory / f"{split}.jsonl", *rows)
