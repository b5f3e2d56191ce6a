"""The Ray actors of a run: rollout engines, graders and learners."""

from pydantic import Field

from pipeline.config.base import StrictModel


class RolloutConfig(StrictModel):
    """vLLM engines. Sampling settings are the field's own."""

    num_workers: int = Field(1, ge=1)
    num_cpus: float = Field(0.5, ge=0)
    """Ray CPUs that one worker reserves. Logical: num_threads is what the engine computes with."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs of one worker. 0: the CPU engine."""
    memory_gib: float = Field(2.5, gt=0)
    """Memory one worker is expected to need. Shown by --dry-run, reserved in Ray."""
    num_threads: int = Field(2, ge=1)
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs one engine is spread over. Needs num_gpus of the same number."""
    gpu_memory_utilization: float = Field(0.5, gt=0, le=1)
    kv_cache_gib: float = Field(1.0, gt=0)
    """Cache for keys and values of the CPU engine."""
    enforce_eager: bool = True
    """False compiles the model first: 100 s at start for about 10 % more speed on CPU."""
    temperature: float = Field(1.0, ge=0)
    """0 is greedy: every completion of a group is then the same."""
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    """0: no limit."""
    max_prompt_length: int = Field(512, ge=1)
    """Tokens. Longer prompts are left out before training starts, and counted."""
    max_completion_length: int = Field(256, ge=1)
    """Tokens."""
    prompts_per_chunk: int = Field(4, ge=1)
    """Prompts that go to one engine together, never mixed with others: what shares a batch changes the
    last bits, so fixed chunks make completions independent of the number of engines."""


def check_shards(rollout: RolloutConfig) -> None:
    """Raises ValueError when the shards of an engine and its GPUs differ in number."""
    if rollout.tensor_parallel_size > 1 and rollout.num_gpus != rollout.tensor_parallel_size:
        raise ValueError(
            f"rollout.num_gpus must equal rollout.tensor_parallel_size, got {rollout.num_gpus:g} and "
            f"{rollout.tensor_parallel_size}: every shard of the engine needs a GPU"
        )


class RewardTerm(StrictModel):
    name: str
    """A registered reward (``correctness``, ``format``) or ``module:function``."""
    weight: float = 1.0


class GradingConfig(StrictModel):
    """The killable processes that compare answers."""

    timeout_s: float = Field(2.0, gt=0)
    """Deadline for grading one completion. Past it the grading child is killed."""
    num_children: int = Field(1, ge=1)
    """Killable processes of each grader, for what text and plain numbers do not decide."""
    memory_limit_mib: int = Field(512, ge=256)
    """Memory of a grading child."""


class RewardConfig(GradingConfig):
    functions: list[RewardTerm] = Field(
        default=[RewardTerm(name="correctness"), RewardTerm(name="format")], min_length=1
    )
    num_workers: int = Field(1, ge=1)
    num_cpus: float = Field(0.25, ge=0)
    memory_gib: float = Field(0.5, gt=0)


class LearnerConfig(StrictModel):
    """Ray Train workers."""

    num_workers: int = Field(1, ge=1)
    num_cpus: float = Field(0.75, ge=0)
    """Ray CPUs per worker. Logical: num_threads is what it computes with."""
    num_gpus: float = Field(0.0, ge=0)
    memory_gib: float = Field(4.0, gt=0)
    num_threads: int = Field(2, ge=1)
    tokens_per_micro_batch: int = Field(2048, ge=16)
    """Tokens, padding included, in one forward and backward pass. Lower it when memory runs out; the gradient
    stays the same."""
    max_failures: int = Field(2, ge=0)
    """How often a killed worker group is started again from the last checkpoint."""
