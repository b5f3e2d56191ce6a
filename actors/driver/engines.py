"""vLLM engines that are Ray actors and answer with the weights in one model's files, for jobs that do not train.

Chunks are fixed before anything starts and are answered in their order, whichever engine finishes first. With fixed
batching a job gives the same rows with one engine or with many, and when it is killed and resumed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group

from actors.calls import Limit, result_of, wait_for
from actors.driver.actor_plan import plan_engines
from actors.driver.cluster import reserve
from actors.driver.start import end_process, engine_options, make_actor, places
from actors.engine_loop import Decoding
from actors.handles import EvalHandle, Ref
from actors.placement import PlacementWatch
from actors.rollout import EvalWorker
from pipeline.config import LoadingConfig, ModelConfig
from pipeline.config.evaluation import EvalRolloutConfig
from pipeline.config.limits import LimitsConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.merging import load_directory
from pipeline.evaluation.models import EvalModel
from pipeline.types import Completion, PromptRequest

CHUNKS_PER_ENGINE = 2
"""Chunks given to an engine at a time, so that none is ever idle."""
Answers = tuple[list[tuple[Completion, ...]], float]
"""Completions [num_requests][num_seeds], and seconds."""
Answer = Callable[[Sequence[list[PromptRequest]], Sequence[Decoding]], Iterator[Answers]]
"""Answers chunks with their sampling settings, in order. An engine that dies is replaced, and answers its chunk again.
"""


@contextmanager
def engine_files(model: EvalModel, loading: LoadingConfig, directory: Path) -> Iterator[Path]:
    """The directory that engines load: the model's own, or a merged copy below ``directory`` that is deleted after the
    block."""
    scratch = directory / "merged_model"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield load_directory(model, loading, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def started_engines(
    rollout: EvalRolloutConfig,
    limits: LimitsConfig,
    settings: ModelConfig,
    max_length: int,
    directory: Path,
    log_name: str = "rollout",
) -> Iterator[Answer]:
    """Engines that live as long as the block.

    Args:
        max_length: tokens of the longest prompt and completion together.
        directory: the engines log below it.
    """
    placement = reserve(plan_engines(rollout), limits.placement_s)
    workers: list[EvalHandle] = []
    arguments = (rollout, settings, max_length, rollout.width)
    try:
        workers += [
            make_actor(EvalWorker, directory, f"{log_name}_{index}", **engine_options(rollout), **place).remote(
                *arguments, _no_weights, end_process
            )
            for index, place in zip(range(rollout.num_workers), places(placement), strict=False)
        ]
        watch = PlacementWatch(placement, limits.placement_s)
        limit = Limit(limits.engine_s, "limits.engine_s")
        yield lambda chunks, decodings: _in_order(workers, chunks, decodings, limit, watch)
    finally:
        for worker in workers:
            ray.kill(worker)
        if placement:
            remove_placement_group(placement)


def check_length(rollout: EvalRolloutConfig, label: str, prompt_length: int, limit: int | None) -> int:
    """Tokens of a prompt and a completion. Raises ConfigError if they exceed the model's limit."""
    length = prompt_length + rollout.max_completion_length
    if limit is not None and length > limit:
        raise ConfigError(
            f"rollout.max_prompt_length and rollout.max_completion_length must fit the {limit} positions of "
            f"{label} together, got {length} tokens for its longest prompt and a completion. Lower one."
        )
    return length


def engine_model(path: Path, loading: LoadingConfig) -> ModelConfig:
    return ModelConfig(name=str(path), dtype=loading.dtype, trust_remote_code=loading.trust_remote_code)


def _no_weights(weight_id: Any) -> Any:
    raise LookupError(f"these engines have only the weights in their model's files, got a request for {weight_id}")


def _in_order(
    workers: Sequence[EvalHandle],
    chunks: Sequence[list[PromptRequest]],
    decodings: Sequence[Decoding],
    limit: Limit,
    check: Callable[[], None],
) -> Iterator[Answers]:
    """Answers of every chunk, in order. An engine gets its next chunk when it has answered one."""
    pending: dict[Ref[Answers], tuple[int, EvalHandle]] = {}
    answered: dict[int, Answers] = {}
    waiting = iter(zip(range(len(chunks)), chunks, decodings, strict=True))
    free = [worker for _ in range(CHUNKS_PER_ENGINE) for worker in workers]
    for position in range(len(chunks)):
        while position not in answered:
            for index, requests, decoding in islice(waiting, len(free)):
                worker = free.pop(0)
                pending[worker.answer.remote(requests, decoding)] = index, worker
            calls = {ref: worker for ref, (_, worker) in pending.items()}
            ready = wait_for(calls, "completions", limit, check)[0]
            index, worker = pending.pop(ready)
            answered[index] = result_of(ready, "an engine")
            free.append(worker)
        yield answered.pop(position)
