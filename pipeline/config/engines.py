"""The Ray actors of a run: rollout engines, graders and learners."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import StrictModel


class EngineConfig(StrictModel):
    """vLLM engines, and how they sample."""

    num_workers: int = Field(1, ge=1)
    """Engines, each in an actor of its own."""
    num_cpus: float = Field(0.5, ge=0)
    """Ray CPUs that each worker reserves. A logical number: the engine computes with num_threads threads."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs of each worker. 0: the CPU engine."""
    memory_gib: float = Field(2.5, gt=0)
    """Memory that each worker is expected to need, in GiB. Reserved in Ray and shown by --dry-run."""
    num_threads: int = Field(2, ge=1)
    """Threads that each CPU engine computes with."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that each engine is spread over. Above 1, num_gpus must be the same number."""
    gpu_memory_utilization: float = Field(0.5, gt=0, le=1)
    """Share of a GPU's memory that the engine uses."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Largest key-value cache of a CPU engine, in GiB. It is never larger than all completions at their longest
    need."""
    enforce_eager: bool = True
    """False compiles the model first: on a CPU, 100 s at start for about 10 % more speed."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature. 0 is greedy: all completions of a group are then the same."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the most likely tokens whose probabilities add up to this. 1: no limit, as GRPO needs it."""
    top_k: int = Field(0, ge=0)
    """Sample from this many of the most likely tokens. 0: no limit, as GRPO needs it."""
    max_prompt_length: int = Field(512, ge=1)
    """Maximum tokens of a prompt. Longer prompts are left out before training starts, and counted."""
    max_completion_length: int = Field(256, ge=1)
    """Maximum tokens of a completion."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Completions that an engine writes at once. None: 128 on a CPU, 256 on a GPU."""
    batching: Literal["continuous", "fixed"] | None = None
    """``continuous``: an engine takes up prompts as it gets room for them. ``fixed``: it takes up a chunk of prompts,
    and no other until the whole chunk is written. What shares a batch changes the last bits of a result, so only fixed
    chunks give the same completions again. None: fixed on CPUs without ``max_staleness``, and wherever
    ``prompts_per_chunk`` is set; otherwise continuous."""
    exact_seeds: bool | None = None
    """Every completion has a sampling seed of its own, so that it can be repeated. On a GPU vLLM samples more slowly
    with such seeds. None: true with fixed batching."""

    @property
    def is_fixed(self) -> bool:
        """The batching decided."""
        return self.batching == "fixed" if self.batching else not self.num_gpus

    @property
    def is_seeded(self) -> bool:
        return self.is_fixed if self.exact_seeds is None else self.exact_seeds

    @property
    def width(self) -> int:
        """Completions that an engine writes at once."""
        return self.max_num_seqs or (256 if self.num_gpus else 128)


class RolloutConfig(EngineConfig):
    """The engines of a training job."""

    prompts_per_chunk: int | None = Field(None, ge=1)
    """With fixed batching, prompts in a chunk. None: each learner's share of a batch, divided among that learner's part
    of the engines. With a number, completions do not depend on how many learners and engines there are."""
    max_staleness: int = Field(0, ge=0)
    """While learners update, engines work ahead on the prompts of up to this many later steps. The completions that a
    step learns from were then begun at most this many updates ago. 0: learners and engines take turns.
    docs/rollouts.md."""
    in_flight_updates: bool = False
    """With ``max_staleness``, engines load new weights while completions are being written, instead of finishing those
    first."""
    replay: str | None = None
    """The directory of a run that recorded its rollouts, as an absolute path. GRPO steps learn from these rollouts
    again, instead of asking engines and graders, and end with the same weights. docs/run_directory.md."""

    @property
    def is_fixed(self) -> bool:
        if self.batching is None and self.prompts_per_chunk is None and self.max_staleness:
            return False
        return super().is_fixed or (self.batching is None and self.prompts_per_chunk is not None)

    @model_validator(mode="after")
    def _settings_that_act(self) -> "RolloutConfig":
        if self.prompts_per_chunk and not self.is_fixed:
            raise ValueError(
                f"prompts_per_chunk must be null with continuous batching, got {self.prompts_per_chunk}: there are no "
                "chunks. Leave it out, or set rollout.batching=fixed"
            )
        if self.in_flight_updates and not self.max_staleness:
            raise ValueError(
                "in_flight_updates must be false with max_staleness=0, got true: engines have nothing to write while "
                "weights change"
            )
        if self.in_flight_updates and self.tensor_parallel_size > 1:
            raise ValueError(
                f"in_flight_updates must be false with tensor_parallel_size above 1, got {self.tensor_parallel_size}: "
                "such an engine decodes in processes of its own, and its tokens' versions would be guessed"
            )
        if self.in_flight_updates and self.is_fixed:
            raise ValueError(
                "in_flight_updates must be false with fixed batching, got true: a chunk is to be written with the same "
                "weights throughout"
            )
        return self


def check_shards(rollout: EngineConfig) -> None:
    """Raises ValueError if an engine's shards and GPUs differ in number."""
    if rollout.tensor_parallel_size > 1 and rollout.num_gpus != rollout.tensor_parallel_size:
        raise ValueError(
            f"rollout.num_gpus must equal rollout.tensor_parallel_size, got {rollout.num_gpus:g} and "
            f"{rollout.tensor_parallel_size}: every shard of the engine needs a GPU"
        )


class RewardTerm(StrictModel):
    """One term of the weighted sum that is a completion's reward."""

    name: str
    """A registered reward (``correctness``, ``format``), or ``module:function``."""
    weight: float = 1.0
    """Factor in the sum. May be negative."""
    gate: bool = False
    """A completion whose value is 0 here gets the lowest total, whatever its other values are."""


class GradingConfig(StrictModel):
    """The killable child processes that compare answers."""

    timeout_s: float = Field(2.0, ge=0.01)
    """Seconds to grade one completion. After that the child is killed, and the outcome is a timeout. At least 0.01,
    because in less time any completion would be a timeout."""
    num_children: int = Field(1, ge=1)
    """Child processes of each grader, for answers that are not decided by comparing text and plain numbers."""
    memory_limit_mib: int = Field(512, ge=256)
    """Memory limit of a child, in MiB."""


class ZScoreConfig(StrictModel):
    """Normalisation of reward parts by their history."""

    history: int = Field(1000, ge=2)
    """Number of newest raw values of each part from which mean and standard deviation are computed."""
    warmup: int = Field(64, ge=2)
    """With fewer values than this, parts stay as they are."""
    std_floor: float = Field(0.05, gt=0)
    """The standard deviation is at least this."""
    clip: float = Field(3.0, gt=0)
    """Z-scores are clipped to [-clip, clip]."""


class RewardConfig(GradingConfig):
    """The reward of a completion, and the workers that compute it."""

    functions: list[RewardTerm] = Field(
        default=[RewardTerm(name="correctness"), RewardTerm(name="format")], min_length=1
    )
    """The terms of the reward, which is their weighted sum."""
    normalize: Literal["zscore"] | None = None
    """``zscore``: each part that is not a gate is replaced, before it is weighted, by its z-score against earlier
    values. A z-score of the total would cancel inside a group."""
    zscore: ZScoreConfig = ZScoreConfig()
    num_workers: int = Field(1, ge=1)
    """Reward workers, each in an actor of its own."""
    num_cpus: float = Field(0.25, ge=0)
    """Ray CPUs that each worker reserves."""
    memory_gib: float = Field(0.5, gt=0)
    """Memory that each worker is expected to need, in GiB. Reserved in Ray and shown by --dry-run."""

    @model_validator(mode="after")
    def _gates_are_lowest(self) -> "RewardConfig":
        names = [term.name for term in self.functions]
        if len(set(names)) < len(names):
            raise ValueError(f"functions must name each reward once, got {names}")
        gates = [term for term in self.functions if term.gate]
        if wrong := [term for term in self.functions if gates and (term.weight < 0 or (term.gate and not term.weight))]:
            raise ValueError(
                f"functions must have weights of 0 or more beside a gate, and a gate one above 0, got "
                f"{wrong[0].weight:g} for {wrong[0].name}: what fails the gate has a total of 0"
            )
        return self


class LearnerConfig(StrictModel):
    """The Ray Train workers that compute gradients."""

    num_workers: int = Field(1, ge=1)
    """Learner workers. Each has a copy of the model and takes an equal share of every batch."""
    num_cpus: float = Field(0.75, ge=0)
    """Ray CPUs that each worker reserves. A logical number: a worker computes with num_threads threads."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs of each worker. 0: it computes on the CPU."""
    memory_gib: float = Field(4.0, gt=0)
    """Memory that each worker is expected to need, in GiB. Reserved in Ray and shown by --dry-run."""
    num_threads: int = Field(2, ge=1)
    """Threads that each worker computes with."""
    tokens_per_micro_batch: int = Field(2048, ge=16)
    """Tokens, padding included, in one forward and backward pass. Lower it if memory runs out: the gradient does not
    depend on it."""
    shard_optimizer: bool = False
    """Each worker keeps AdamW's moments only for its own share of the trained weights, and sends the weights that it
    updated to the other workers. Losses and checkpoints stay the same. docs/sft.md."""
    max_failures: int = Field(2, ge=0)
    """Maximum restarts of a dead worker group, from the last checkpoint."""
    release_memory_above_frac: float | None = Field(0.9, gt=0, le=1)
    """Share of a device's memory, used by all processes, above which a learner warns and releases its cache. On a CPU
    it is a share of the memory of the machine or its container. None: measure only. docs/metrics.md."""
