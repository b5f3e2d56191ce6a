"""The rollout worker: a vLLM engine that writes completions with exactly the weights asked for."""

import asyncio
import json
import logging
import os
import secrets
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.engine_loop import Chunk, Decoding, EngineLoop, SyncReport
from actors.weights import PackedWeights, Probe
from pipeline.config import EngineConfig, ModelConfig, RolloutConfig
from pipeline.errors import GradusError, ModelError, first_line
from pipeline.models.imports import quick_imports
from pipeline.models.memory_estimate import model_shape
from pipeline.models.tokenizer import end_of_turn_id
from pipeline.runs.notices import notify
from pipeline.types import Answer, Completion, PromptRequest, WeightId

logger = logging.getLogger(__name__)
BLOCK = 32
"""Tokens in a block of a CPU engine's cache."""
PLAIN_MODELS = ("llama", "mistral", "qwen2", "qwen3")
"""Model types with the same full cache in every layer."""
PROBE_LIMIT = 0.5
"""Mean absolute difference of log-probabilities that an engine may have from the learner: in bfloat16 about 0.04 were
measured, and several with other weights."""


class EngineError(Exception):
    """Something failed inside vLLM, which may still hold unfinished requests and must not be used again."""


class RolloutWorker:
    """One vLLM engine. actors/driver/start.py makes it a Ray actor; tests build it directly.

    Args:
        config: engine and sampling settings.
        model: its files are resolved on this node.
        max_model_len: tokens of the longest prompt and completion together.
        max_num_seqs: sequences decoded at once.
        pull: fetches the weights of an id, or newer ones of its attempt. Called only if the engine holds others.
        end_process: called after a failure inside the engine: an actor's process ends, so that Ray replaces it and
            repeats the calls. None: they raise EngineError.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: ModelConfig,
        max_model_len: int,
        max_num_seqs: int,
        pull: Callable[[WeightId], tuple[WeightId, PackedWeights]],
        end_process: Callable[[], None] | None = None,
    ) -> None:
        self._end_process, self._is_fixed = end_process, config.is_fixed
        self._loop = EngineLoop(
            lambda: VllmEngine(config, model, max_model_len, max_num_seqs),
            pull,
            max_num_seqs,
            _updates_in_flight(config),
            self._failed,
        )

    async def sync(self, weight_id: WeightId | None) -> SyncReport | None:
        """Load these weights unless the engine already holds them, or newer ones.

        Args:
            weight_id: None for a report of what is loaded.

        Returns:
            None if the engine never loaded any.
        """
        return await asyncio.wrap_future(self._loop.sync(weight_id))

    async def complete(self, chunk: Chunk, index: int) -> Answer:
        """The answer to one request of a chunk, as soon as it is written. The first call begins the whole chunk.

        The answer to a chunk that is alone in the engine depends only on the weights, the chunk and its seeds, so Ray
        may safely retry the call.
        """
        return await asyncio.wrap_future(self._loop.submit(chunk)[index])

    async def generate(
        self, weight_id: WeightId | None, requests: list[PromptRequest], decoding: Decoding
    ) -> list[tuple[Completion, ...]]:
        """Complete prompts, with fixed batching alone in the engine: [num_requests][num_seeds]."""
        return [answer.completions for answer in await self._answers(weight_id, requests, decoding)]

    async def _answers(
        self, weight_id: WeightId | None, requests: Sequence[PromptRequest], decoding: Decoding
    ) -> list[Answer]:
        chunk = Chunk(uuid.uuid4().hex, weight_id, tuple(requests), decoding, alone=self._is_fixed, is_urgent=True)
        return list(await asyncio.gather(*map(asyncio.wrap_future, self._loop.submit(chunk))))

    def _failed(self, error: Exception) -> Exception:
        """Ends the process: vLLM keeps the requests that it was working on, and the next call would step them for
        ever. The user's own mistakes are passed on: a new process would make them again."""
        if isinstance(error, GradusError):
            return error
        logger.critical("the engine failed", exc_info=error)
        reason = f"{type(error).__name__}: {first_line(error)}"
        try:
            notify(f"an engine failed, so its process ends and is replaced: {reason}")
        finally:
            if self._end_process:
                self._end_process()
        failure = EngineError(reason)
        failure.__cause__ = error
        return failure

    def close(self) -> None:
        """Shut the engine down."""
        self._loop.close()


class EvalWorker(RolloutWorker):
    """An engine of an evaluation job: it also measures how long a chunk takes."""

    async def answer(
        self, requests: list[PromptRequest], decoding: Decoding
    ) -> tuple[list[tuple[Completion, ...]], float]:
        """Completions [num_requests][num_seeds], and seconds."""
        answers = await self._answers(None, requests, decoding)
        return [answer.completions for answer in answers], max(answer.seconds for answer in answers)


class VllmEngine:
    """vLLM, stepped by hand. All calls must come from the thread that made it."""

    def __init__(self, config: EngineConfig, model: ModelConfig, max_model_len: int, max_num_seqs: int) -> None:
        from vllm.sampling_params import RequestOutputKind

        self._is_seeded, self._in_flight = config.is_seeded, _updates_in_flight(config)
        self._tensor_parallel = config.tensor_parallel_size > 1
        self._llm = _start_engine(config, model, max_model_len, max_num_seqs)
        self._engine = self._llm.llm_engine
        self._fixed = {
            "stop_token_ids": [end_of_turn_id(self._llm.get_tokenizer())],  # vLLM itself stops at eos only
            "logprobs": 0,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        self._running: dict[int, tuple[str, Sequence[int]]] = {}
        """vLLM's own id and the prompt of each running completion."""
        self._num_loads = 0
        self._is_probed = False

    def add(self, key: int, prompt: Sequence[int], seed: int, decoding: Decoding) -> None:
        from vllm import SamplingParams

        params = SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            max_tokens=decoding.max_completion_length,
            seed=seed if self._is_seeded else None,
            stop=list(decoding.stop),
            **self._fixed,
        )
        tokens: dict[str, Any] = {"prompt_token_ids": list(prompt)}
        if self._in_flight:  # the cached start of a prompt is that of the weights it was computed with
            tokens["cache_salt"] = str(self._num_loads)
        self._running[key] = self._engine.add_request(str(key), tokens, params), prompt

    def step(self) -> list[tuple[int, Completion]]:
        finished = []
        for output in self._engine.step():
            if output.finished:
                key = int(output.request_id)
                _, prompt = self._running.pop(key)
                if len(output.outputs) != 1 or list(output.prompt_token_ids) != list(prompt):
                    raise EngineError(f"the engine must answer the prompt of request {key}, got an answer to another")
                finished.append((key, _completion(output.outputs[0])))
        if self._running and not self._engine.has_unfinished_requests():
            raise EngineError(f"the engine must answer every request, lost {len(self._running)}")
        return finished

    def num_tokens(self, key: int) -> int:
        state = self._engine.output_processor.request_states[self._running[key][0]]
        return int(state.detokenizer.num_output_tokens())

    def load(self, weights: PackedWeights) -> float | None:
        weights.verify()
        self._num_loads += 1
        with warnings.catch_warnings():
            # The buffer is the object store's shared memory. It is read-only, which torch warns about.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            if self._tensor_parallel:
                self._load_from_disk(weights)
            else:
                self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights.tensors()})
        if not self._running:
            self.reset_cache()
        if self._is_probed or weights.probe is None or self._running:
            return None
        self._is_probed = True
        return self._compare(weights.probe)

    def _load_from_disk(self, weights: PackedWeights) -> None:
        """Each shard of an engine is a process of its own: it reads a file instead of a pickled copy."""
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory() as directory:
            save_file(dict(weights.tensors()), Path(directory) / "model.safetensors")
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": directory})

    def _compare(self, probe: Probe) -> float:
        """Mean absolute difference between the engine's and the learner's log-probabilities of the probe."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        (output,) = self._llm.generate([{"prompt_token_ids": list(probe.token_ids)}], params, use_tqdm=False)
        steps = zip(output.prompt_logprobs[1:], probe.token_ids[1:], probe.logprobs, strict=True)
        differences = [abs(step[token].logprob - expected) for step, token, expected in steps]
        mean: float = sum(differences) / len(differences)
        logger.info("the engine's log-probabilities of the probe differ by %.3g from the learner's", mean)
        _check_probe(mean)
        return mean

    def reset_cache(self) -> None:
        self._llm.reset_prefix_cache()

    def close(self) -> None:
        self._engine.engine_core.shutdown()


def _updates_in_flight(config: EngineConfig) -> bool:
    return isinstance(config, RolloutConfig) and config.in_flight_updates


def _check_probe(difference: float) -> None:
    """Raises ModelError if the engine has other weights than it was given. A new engine would have them too."""
    if not difference <= PROBE_LIMIT:
        raise ModelError(
            f"engines must answer with the weights they loaded: log-probabilities may differ by {PROBE_LIMIT} from the "
            f"learner's, got {difference:.3g}. Engine and learner read this model differently: choose another one."
        )


def _completion(output: Any) -> Completion:
    logprobs = (step[token].logprob for step, token in zip(output.logprobs, output.token_ids, strict=True))
    return Completion(
        token_ids=np.array(output.token_ids, dtype=np.int32),
        sampler_logprobs=np.fromiter(logprobs, dtype=np.float32, count=len(output.token_ids)),
        text=output.text,
        stop_reason="length" if output.finish_reason == "length" else "stop",
    )


def engine_environment(config: EngineConfig) -> dict[str, str]:
    """Environment variables that must be set before vllm is imported."""
    in_process = "0" if config.tensor_parallel_size == 1 else "1"
    variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": in_process, "VLLM_NO_USAGE_STATS": "1"}
    if config.num_gpus == 0:
        variables |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(config.num_threads),
        }
        if config.enforce_eager:  # vLLM compiles its ranks of log-probabilities in spite of it: in C++, for 8 s
            variables["TORCHDYNAMO_DISABLE"] = "1"
    return variables


def cache_bytes(config: EngineConfig, model: ModelConfig, path: Path, max_model_len: int, max_num_seqs: int) -> int:
    """Size of a CPU engine's cache: ``kv_cache_gib``, or less if all completions fit into less at their longest."""
    limit = int(config.kv_cache_gib * 2**30)
    described = json.loads((path / "config.json").read_text())
    shape = model_shape(described) if described.get("model_type") in PLAIN_MODELS else None
    if shape is None:
        return limit
    num_blocks = max_num_seqs * -(-max_model_len // BLOCK) + 1  # vLLM keeps one for itself
    num_bytes = 2 if model.dtype in ("bfloat16", "float16") else 4
    return min(limit, num_blocks * BLOCK * 2 * shape.num_layers * shape.keys * num_bytes)


def _start_engine(config: EngineConfig, model: ModelConfig, max_model_len: int, max_num_seqs: int) -> Any:
    from pipeline.models.hub import resolve_model

    os.environ.update(engine_environment(config))
    path = resolve_model(model)
    more: dict[str, Any] = {}
    if config.num_gpus == 0:
        # A seeded request fails if its prompt is split ("CPU Generator does not use offset"). The smallest block lets
        # the completions of a group share most of their prompt.
        more = {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(max_model_len, 8192),
            "block_size": BLOCK,
            "kv_cache_memory_bytes": cache_bytes(config, model, path, max_model_len, max_num_seqs),
        }
    if _updates_in_flight(config):  # on a GPU a token would be under way, with weights that it is not recorded with
        more["async_scheduling"] = False
    with quick_imports():
        from vllm import LLM

    start = time.perf_counter()
    llm = LLM(
        model=str(path),
        dtype=model.dtype,
        trust_remote_code=model.trust_remote_code,
        enforce_eager=config.enforce_eager,
        tensor_parallel_size=config.tensor_parallel_size,
        # In a placement group vLLM would ask Ray for its shards, one GPU per bundle: they are processes of this actor.
        distributed_executor_backend="mp" if config.tensor_parallel_size > 1 else None,
        gpu_memory_utilization=config.gpu_memory_utilization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        seed=0 if config.is_seeded else secrets.randbits(31),  # engines without seeds must not repeat each other
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
        **more,
    )
    logger.info("engine for %s started in %.1f s", model.name, time.perf_counter() - start)
    return llm
