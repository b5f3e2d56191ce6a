"""The rollout worker: a vLLM engine that writes completions with exactly the weights asked for."""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.weights import PackedWeights
from pipeline.config import ModelConfig, RolloutConfig
from pipeline.models.tokenizer import end_of_turn_id
from pipeline.types import Completion, PromptRequest, WeightId

logger = logging.getLogger(__name__)
EVAL_CHUNK = 32
"""Prompts of a held-out evaluation that share an engine's batch. Fixed, so that results do not depend on how many
engines there are."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """Sampling settings of a request."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    max_completion_length: int = 256
    stop: tuple[str, ...] = ()
    """Texts that end a completion and are not part of it."""

    @classmethod
    def from_config(cls, config: RolloutConfig) -> "Decoding":
        return cls(config.temperature, config.top_p, config.top_k, config.max_completion_length)


class RolloutWorker:
    """One vLLM engine. actors/driver/start.py makes it a Ray actor; tests build it directly.

    Args:
        config: engine and sampling settings.
        model: its files are resolved on this node.
        max_model_len: tokens of the longest prompt and completion together.
        max_num_seqs: sequences decoded at once.
        pull: fetches the weights of an id. Called only if the engine holds others.
    """

    def __init__(
        self,
        config: RolloutConfig,
        model: ModelConfig,
        max_model_len: int,
        max_num_seqs: int,
        pull: Callable[[WeightId], PackedWeights],
    ) -> None:
        self._pull = pull
        self._weight_id: WeightId | None = None
        self._tensor_parallel = config.tensor_parallel_size > 1
        self._llm = _start_engine(config, model, max_model_len, max_num_seqs)
        self._stop_token_ids = [end_of_turn_id(self._llm.get_tokenizer())]  # vLLM itself stops at eos only

    def sync(self, weight_id: WeightId | None) -> None:
        """Load these weights unless the engine already holds them.

        Args:
            weight_id: None for the weights in the model's files, in an engine that never had others.
        """
        if weight_id is not None and weight_id != self._weight_id:
            self._weight_id = None  # a half-loaded engine must never answer
            self._load(self._pull(weight_id))
            self._weight_id = weight_id

    def generate(
        self, weight_id: WeightId | None, requests: list[PromptRequest], decoding: Decoding
    ) -> list[tuple[Completion, ...]]:
        """Complete one chunk of prompts, alone in the engine: [num_requests][num_seeds].

        The answer depends only on the weights, the chunk and its seeds, so Ray may safely retry the call.
        """
        from vllm import SamplingParams

        self.sync(weight_id)
        self._llm.reset_prefix_cache()
        prompts = [{"prompt_token_ids": list(r.prompt_token_ids)} for r in requests for _ in r.seeds]
        params = [
            SamplingParams(
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                top_k=decoding.top_k,
                max_tokens=decoding.max_completion_length,
                seed=seed,
                stop=list(decoding.stop),
                stop_token_ids=self._stop_token_ids,
                logprobs=0,
            )
            for r in requests
            for seed in r.seeds
        ]
        outputs = iter(self._llm.generate(prompts, params, use_tqdm=False))
        return [tuple(_completion(next(outputs).outputs[0]) for _ in request.seeds) for request in requests]

    def _load(self, weights: PackedWeights) -> None:
        with warnings.catch_warnings():
            # The buffer is the object store's shared memory. It is read-only, which torch warns about.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            if self._tensor_parallel:
                self._load_from_disk(weights)
            else:
                self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights.tensors()})
        self._llm.reset_prefix_cache()

    def _load_from_disk(self, weights: PackedWeights) -> None:
        """Each shard of an engine is a process of its own: it reads a file instead of a pickled copy."""
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory() as directory:
            save_file(dict(weights.tensors()), Path(directory) / "model.safetensors")
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": directory})

    def close(self) -> None:
        """Shut the engine down."""
        self._llm.llm_engine.engine_core.shutdown()


class EvalWorker(RolloutWorker):
    """An engine of an evaluation job: it also measures how long a chunk takes."""

    def answer(self, requests: list[PromptRequest], decoding: Decoding) -> tuple[list[tuple[Completion, ...]], float]:
        """Completions [num_requests][num_seeds], and seconds."""
        start = time.perf_counter()
        completions = self.generate(None, requests, decoding)
        return completions, time.perf_counter() - start


def _completion(output: Any) -> Completion:
    return Completion(
        token_ids=tuple(output.token_ids),
        sampler_logprobs=tuple(
            step[token].logprob for step, token in zip(output.logprobs, output.token_ids, strict=True)
        ),
        text=output.text,
        stop_reason="length" if output.finish_reason == "length" else "stop",
    )


def engine_environment(config: RolloutConfig) -> dict[str, str]:
    """Environment variables that must be set before vllm is imported."""
    in_process = "0" if config.tensor_parallel_size == 1 else "1"
    variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": in_process, "VLLM_NO_USAGE_STATS": "1"}
    if config.num_gpus == 0:
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(config.kv_cache_gib))),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(config.num_threads),
        }
    return variables


def _start_engine(config: RolloutConfig, model: ModelConfig, max_model_len: int, max_num_seqs: int) -> Any:
    from pipeline.models.hub import resolve_model

    os.environ.update(engine_environment(config))
    path = resolve_model(model)
    cpu_only: dict[str, Any] = {}
    if config.num_gpus == 0:
        # A seeded request fails if its prompt is split ("CPU Generator does not use offset"). The smallest block lets
        # the completions of a group share most of their prompt.
        cpu_only = {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(max_model_len, 8192),
            "block_size": 32,
        }
    from vllm import LLM

    start = time.perf_counter()
    llm = LLM(
        model=str(path),
        dtype=model.dtype,
        trust_remote_code=model.trust_remote_code,
        enforce_eager=config.enforce_eager,
        tensor_parallel_size=config.tensor_parallel_size,
        gpu_memory_utilization=config.gpu_memory_utilization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
        **cpu_only,
    )
    logger.info("engine for %s started in %.1f s", model.name, time.perf_counter() - start)
    return llm
