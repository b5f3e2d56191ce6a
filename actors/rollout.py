"""The rollout worker: a vLLM engine that writes completions with exactly the weights asked for."""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.weights import PackedWeights, Probe
from pipeline.config import ModelConfig, RolloutConfig
from pipeline.errors import ModelError, first_line
from pipeline.models.tokenizer import end_of_turn_id
from pipeline.runs.notices import notify
from pipeline.types import Completion, PromptRequest, WeightId

logger = logging.getLogger(__name__)
EVAL_CHUNK = 32
"""Prompts of a held-out evaluation that share an engine's batch. Fixed, so that results do not depend on how many
engines there are."""

PROBE_LIMIT = 0.5
"""Mean absolute difference of log-probabilities that an engine may have from the learner: in bfloat16 about 0.04 were
measured, and several with other weights."""


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


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Proof of the weights that an engine loaded."""

    checksum: str
    """Of the weights as they arrived."""
    probe_diff: float | None
    """Mean absolute difference between the engine's log-probabilities of the probe and the learner's. Measured with the
    first weights that an engine loads; None before."""


class EngineError(Exception):
    """Something failed inside vLLM, which may still hold unfinished requests and must not be used again."""


class RolloutWorker:
    """One vLLM engine. actors/driver/start.py makes it a Ray actor; tests build it directly.

    Args:
        config: engine and sampling settings.
        model: its files are resolved on this node.
        max_model_len: tokens of the longest prompt and completion together.
        max_num_seqs: sequences decoded at once.
        pull: fetches the weights of an id. Called only if the engine holds others.
        end_process: called after a failure inside the engine: an actor's process ends, so that Ray replaces it and
            repeats the call. None: the call raises EngineError.
    """

    def __init__(
        self,
        config: RolloutConfig,
        model: ModelConfig,
        max_model_len: int,
        max_num_seqs: int,
        pull: Callable[[WeightId], PackedWeights],
        end_process: Callable[[], None] | None = None,
    ) -> None:
        self._pull, self._end_process = pull, end_process
        self._weight_id: WeightId | None = None
        self._report: SyncReport | None = None
        self._tensor_parallel = config.tensor_parallel_size > 1
        self._llm = _start_engine(config, model, max_model_len, max_num_seqs)
        self._stop_token_ids = [end_of_turn_id(self._llm.get_tokenizer())]  # vLLM itself stops at eos only

    def sync(self, weight_id: WeightId | None) -> SyncReport | None:
        """Load these weights unless the engine already holds them.

        Args:
            weight_id: None for the weights in the model's files, in an engine that never had others.

        Returns:
            None if the engine never loaded any.
        """
        if weight_id is not None and weight_id != self._weight_id:
            self._weight_id = None  # a half-loaded engine must never answer
            weights = self._pull(weight_id)
            with self._inside_engine():
                weights.verify()
                self._load(weights)
                probe_diff = self._report.probe_diff if self._report else self._compare(weights.probe)
            _check_probe(probe_diff)
            self._report = SyncReport(weights.checksum, probe_diff)
            self._weight_id = weight_id
        return self._report

    def generate(
        self, weight_id: WeightId | None, requests: list[PromptRequest], decoding: Decoding
    ) -> list[tuple[Completion, ...]]:
        """Complete one chunk of prompts, alone in the engine: [num_requests][num_seeds].

        The answer depends only on the weights, the chunk and its seeds, so Ray may safely retry the call.
        """
        from vllm import SamplingParams

        self.sync(weight_id)
        prompts = [list(r.prompt_token_ids) for r in requests for _ in r.seeds]
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
        with self._inside_engine():
            self._llm.reset_prefix_cache()
            completions = iter([_completion(output.outputs[0]) for output in self._answers(prompts, params)])
        return [tuple(next(completions) for _ in request.seeds) for request in requests]

    def _answers(self, prompts: Sequence[list[int]], params: Any) -> list[Any]:
        """vLLM's outputs, one for each prompt. Raises EngineError if they are not the answers to these prompts."""
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        answered = [list(output.prompt_token_ids) for output in outputs if output.finished and len(output.outputs) == 1]
        if answered != list(prompts):
            raise EngineError(
                f"the engine must answer {len(prompts)} prompts, got {len(answered)} answers or to others"
            )
        return list(outputs)

    def _compare(self, probe: Probe | None) -> float | None:
        """Mean absolute difference between the engine's and the learner's log-probabilities of the probe."""
        from vllm import SamplingParams

        if probe is None:
            return None
        (output,) = self._answers(
            [list(probe.token_ids)], SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        )
        steps = zip(output.prompt_logprobs[1:], probe.token_ids[1:], probe.logprobs, strict=True)
        differences = [abs(step[token].logprob - expected) for step, token, expected in steps]
        mean: float = sum(differences) / len(differences)
        logger.info("the engine's log-probabilities of the probe differ by %.3g from the learner's", mean)
        return mean

    @contextmanager
    def _inside_engine(self) -> Iterator[None]:
        """Any exception within the block ends the process: vLLM keeps the requests that it was working on, and the next
        call would step them for ever."""
        try:
            yield
        except Exception as error:
            logger.critical("the engine failed", exc_info=True)
            reason = f"{type(error).__name__}: {first_line(error)}"
            notify(f"an engine failed, so its process ends and is replaced: {reason}")
            if self._end_process:
                self._end_process()
            raise EngineError(reason) from error

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


def _check_probe(difference: float | None) -> None:
    """Raises ModelError if the engine has other weights than it was given. A new engine would have them too."""
    if difference is not None and not difference <= PROBE_LIMIT:
        raise ModelError(
            f"engines must answer with the weights they loaded: log-probabilities may differ by {PROBE_LIMIT} from the "
            f"learner's, got {difference:.3g}. Engine and learner read this model differently: choose another one."
        )


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
        # In a placement group vLLM would ask Ray for its shards, one GPU per bundle: they are processes of this actor.
        distributed_executor_backend="mp" if config.tensor_parallel_size > 1 else None,
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
