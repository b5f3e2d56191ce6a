"""The configuration of a job: typed sections, read from YAML and dotted overrides, checked once.

Later wins: the defaults below, the YAML file, its chosen preset, ``key=value`` overrides.
Nothing is repaired: a wrong setting is a ConfigError that names the key.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, overload

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from yaml import YAMLError

from pipeline.errors import ConfigError
from pipeline.templates import template_parts


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


class LoraConfig(StrictModel):
    """Low-rank adapters by peft. arXiv:2106.09685."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )
    """Names of linear modules. One that the model lacks is an error that lists the names it has."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) in place of alpha / r. arXiv:2312.03732."""
    init: Literal["default", "gaussian", "pissa"] = "default"
    """``pissa`` starts from the principal singular vectors and changes the base. arXiv:2404.02948."""


class ModelConfig(StrictModel):
    name: str = "embedded:smollm2-135m-instruct"
    """A hub name, a local directory, or the embedded model."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Where hub names are looked up. HF_ENDPOINT names a mirror of the Hugging Face hub."""
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the forward and backward pass, of the engine, and of the final model. auto: bfloat16, but float32 where
    learners run on a CPU without bfloat16 products. The machine that a run is started on decides, once."""
    master_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that the optimizer updates. bfloat16 halves memory and loses small updates."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Of the learner. auto: cuda, else mps, else cpu."""
    device_map: str | None = None
    """Handed to transformers, which then places the weights itself; needs learner.num_workers=1."""
    attn_implementation: str = "sdpa"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    """Runs Python code that comes with the model. Leave it off for models you did not read."""
    lora: LoraConfig | None = None
    """None trains every weight."""


class FieldNames(StrictModel):
    """Columns of a data set. A name that is set must exist; None means the data has none."""

    question: str = "question"
    answer: str = "answer"
    solution: str | None = None
    """A worked solution. None takes it from ``answer`` where that holds one (see answer_format)."""
    level: str | None = None
    type: str | None = None
    id: str | None = None
    """None makes ids from the split and a hash of the question."""


class ArithmeticConfig(StrictModel):
    """The embedded sets, by reasoning-gym: ``embedded:arithmetic``, five levels of chained sums, and
    ``embedded:operations``, five operations. Of the latter every problem is worked out, in steps."""

    train_per_level: int = Field(600, ge=1)
    eval_per_level: int = Field(200, ge=1)
    worked_per_level: list[int] = Field(default=[400, 400, 40, 20, 10], min_length=5, max_length=5)
    """How many training problems of each level come with a worked solution. ``embedded:arithmetic`` alone."""
    terse_frac: float = Field(0.5, ge=0, le=1)
    """Share of the worked solutions that give the result in one line. The others work from partial sum to partial sum,
    which is what pays; SFT learns both habits, and GRPO finds out which one to keep. ``embedded:arithmetic`` alone."""


class DataConfig(StrictModel):
    name: str = "embedded:arithmetic"
    """A hub data set, a parquet or JSONL file, a directory of ``<split>.parquet|jsonl``, or embedded."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    subset: str | None = None
    """The hub data set's configuration, such as ``main`` of ``openai/gsm8k``."""
    train_split: str = "train"
    """A split name, or an expression of the datasets library: ``train[:1000]``, ``train[10%:20%]``, sums of them."""
    eval_split: str = "test"
    fields: FieldNames = FieldNames()
    task_name: Literal["gsm8k", "metamathqa", "math"] | None = None
    """Sets answer_format, and evaluations while SFT trains then have loss, perplexity and token accuracy on held-out
    solutions besides the accuracy of answers."""
    answer_format: Literal["plain", "hash", "boxed", "phrase"] | None = None
    """How the gold answer is read from ``fields.answer``: the whole text, what follows ``####``
    (GSM8K), the last box (MATH), or what follows ``The answer is:`` (MetaMathQA). None: as task_name has it, else the
    whole text."""
    prompt_template: str | None = None
    """Plain-text prompts: ``metamath``, ``gsm8k``, or a text with ``{field}`` for columns of the data, which must
    hold the question. What SFT trains on follows the prompt as it stands in the data, without <reasoning> and <answer>:
    the field at the very end, or, where the text or the question ends it, ``fields.solution``, else ``fields.answer``.
    None: the model's chat template."""
    system_prompt: str = (
        "Solve the problem. Think inside <reasoning> and </reasoning>, "
        "then give only the final answer inside <answer> and </answer>."
    )
    """First message of every prompt; empty for none. A prompt_template goes without."""
    arithmetic: ArithmeticConfig = ArithmeticConfig()

    @property
    def gold_format(self) -> str:
        """``answer_format``, or that of the task."""
        of_task = {"gsm8k": "hash", "metamathqa": "phrase", "math": "boxed", None: "plain"}
        return self.answer_format or of_task[self.task_name]

    @field_validator("prompt_template")
    @classmethod
    def _can_be_read(cls, template: str | None) -> str | None:
        if template is not None:
            template_parts(template)
        return template


class ProblemFilter(StrictModel):
    """Which training problems a stage uses. None means all."""

    levels: list[str] | None = None
    types: list[str] | None = None
    sources: list[str] | None = None
    max_per_level: int | None = Field(None, ge=1)


class OptimizerConfig(StrictModel):
    """AdamW and its learning rate. Shared by both kinds of stage."""

    learning_rate: float = Field(1e-5, gt=0)
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After warm-up: held, or lowered so that the step after the last would get 0."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the stage's steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this global L2 norm."""


class TrainerConfig(StrictModel):
    """What happens after an optimizer step. All but ``name`` is for ``SpectralRefactor``: docs/spectral.md."""

    name: Literal["Trainer", "SpectralRefactor"] = "Trainer"
    """``Trainer`` does nothing more. ``SpectralRefactor`` refactors LoRA adapters from time to time."""

    refactor_every: int = Field(100, ge=1)
    """Optimizer steps between two refactorings."""
    warmup_steps: int = Field(100, ge=0)
    """The first is not before so many optimizer steps: B starts at 0 and has no spectrum yet."""
    cooldown_steps: int = Field(100, ge=0)
    """Optimizer steps at the end of training that follow the last one."""
    mode: Literal["exact", "balanced"] = "exact"
    """``exact`` leaves B A unchanged. ``balanced`` moves its singular values to their mean, as far as lambda says."""
    lambda_start: float = Field(0.0, ge=0, le=1)
    """Lambda of ``balanced`` at step 0. It grows linearly to 1 at the last step."""
    damping: float = Field(0.0, ge=0)
    """Added to a singular value before its root becomes the scale of a row of A; B gets the rest, so that B A does
    not change. It keeps Adam's moments small where a singular value is."""
    floor: float = Field(1e-4, gt=0)
    """A row of A is never shorter than the root of it, whatever its singular value: where B is 0, gradients reach
    B through that row. B A does not change."""
    first_moments: Literal["map", "clear"] = "map"
    """``map`` leaves m_B A + B m_A unchanged. ``clear`` sets Adam's first moments to 0."""
    layers: list[str] = Field(default=["*"], min_length=1)
    """Names of layers, or endings of names, with * and ?: ``q_proj``, ``layers.0.mlp.*``."""
    min_layer_params: int = Field(0, ge=0)
    """Only layers of at least so many weights, d_out x d_in."""
    max_layer_params: int | None = Field(None, ge=1)
    """Only layers of at most so many weights. None: no limit."""


class SFTConfig(OptimizerConfig):
    """Supervised fine-tuning on worked solutions."""

    per_device_train_batch_size: int = Field(16, ge=1)
    """Examples of one learner worker in one accumulation step."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Accumulation steps per optimizer step. Only the product with the batch size and the number of workers counts: how
    much goes through the model at a time is ``learner.tokens_per_micro_batch``, and every token weighs the same."""
    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the stage's problems; a new order each time."""
    max_steps: int | None = Field(None, ge=1)
    """Stops earlier than num_train_epochs, or None."""
    max_length: int = Field(1024, ge=8)
    """Tokens of prompt and solution."""
    too_long: Literal["drop", "truncate"] = "drop"
    """Longer examples are left out, or cut off at max_length. Either way they are counted."""
    loss_on: Literal["completion", "all"] = "completion"
    """``all`` learns the prompts too."""
    packing: bool = True
    """Several examples in one row, none sees another and positions restart: no padding. False: rows of similar
    length, padded. The loss is the same."""
    pad_to_multiple_of: int = Field(8, ge=1)
    """Rows are padded to a multiple of so many tokens; packed ones in bfloat16 on a CPU to one of 64."""


class GRPOConfig(OptimizerConfig):
    """Group relative policy optimization. arXiv:2402.03300."""

    learning_rate: float = Field(1e-6, gt=0)
    num_iterations: int = Field(1, ge=1)
    """Outer iterations; each starts by taking the policy as the new reference policy."""
    num_steps: int = Field(100, ge=1)
    """Steps per iteration. One step: batch_size prompts sampled, graded and learned from."""
    batch_size: int = Field(8, ge=1)
    """Prompts per step, over all learner workers."""
    num_generations: int = Field(8, ge=2)
    """Completions per prompt: one group. One alone has nothing to be compared with."""
    mu: int = Field(1, ge=1)
    """Optimizer updates per batch. Above 1 the ratio leaves 1 and clipping acts."""
    epsilon: float = Field(0.2, gt=0, lt=1)
    """The ratio is clamped to [1 - epsilon, 1 + epsilon_high]. PPO, arXiv:1707.06347."""
    epsilon_high: float | None = Field(None, gt=0)
    """None: epsilon. A larger one is DAPO's clip-higher. arXiv:2503.14476."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL term against the reference policy. 0: no reference pass at all."""
    normalize_std: bool = True
    """Divide advantages by the group's standard deviation. False: Dr. GRPO, arXiv:2503.20783."""
    loss_aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """``sequence``: mean over a completion's tokens, then over completions (GRPO). ``token``: mean over
    all tokens of the batch (DAPO). ``constant``: sum over tokens divided by num_completions x
    max_completion_length (Dr. GRPO)."""
    drop_zero_variance_groups: bool = False
    """Leave groups of equal rewards out of the loss and of its denominator."""
    mask_ungraded: bool = True
    """Leave completions whose grading timed out, or whose gold answer is bad, out of the advantage
    and the loss. False scores them as wrong."""
    mask_truncated: bool = False
    """Leave completions cut off at max_completion_length out of the loss (DAPO)."""


class CarryConfig(StrictModel):
    """What a stage takes over from the one before it."""

    weights: bool = True
    """False starts again from ``model``."""
    optimizer: bool = False
    """AdamW's moments. Needs the weights they belong to."""
    replay_buffer: bool = True
    """False empties the buffer: from here on only problems of this stage and later ones are replayed."""

    @model_validator(mode="after")
    def _moments_belong_to_weights(self) -> "CarryConfig":
        if self.optimizer and not self.weights:
            raise ValueError("optimizer must be false where weights is false: its moments belong to those weights")
        return self


class StageConfig(StrictModel):
    """One stage. Stages run in order, each from the weights of the one before."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    kind: Literal["sft", "grpo"]
    each_level: bool = False
    """Stands for one stage per level, in ``curriculum.level_order``: ``level`` becomes ``level_1``, ``level_2``."""
    problems: ProblemFilter = ProblemFilter()
    carry: CarryConfig = CarryConfig()
    replay_ratio: float | None = Field(None, ge=0, lt=1)
    """Of this stage alone. None: ``curriculum.replay_ratio``."""
    settings: dict[str, Any] = {}
    """Settings of this stage that differ from the section of its kind (``sft:`` or ``grpo:``)."""


class PromotionConfig(StrictModel):
    """When a stage of one level ends early or is repeated, by held-out accuracy on that level."""

    threshold: float | None = Field(None, gt=0, le=1)
    """The stage ends at the first evaluation that reaches it. Ended below it, it is repeated. None: neither."""
    patience: int | None = Field(None, ge=1)
    """The stage ends after so many evaluations in a row without a new best. None: never."""
    max_repeats: int = Field(0, ge=0)
    """How often a stage that missed its threshold is run again on the same problems."""
    every_steps: int = Field(10, ge=1)
    """Steps between two evaluations of the level."""


class CurriculumConfig(StrictModel):
    """Levels in order, and the replay of earlier ones. Without this section nothing is replayed."""

    level_order: Literal["forward", "reverse", "mixed"] | list[str] = "forward"
    """Of stages with each_level: easiest first, hardest first, a list of levels (one may come back), or all
    levels in one stage with as many steps as the others have together: the baseline."""
    levels: list[str] | None = Field(None, min_length=1)
    """Easiest first. None: the levels of the training data in natural order."""
    max_train_samples_per_level: int | None = Field(None, ge=1)
    """For stages whose ``problems.max_per_level`` is not set."""
    replay_ratio: float = Field(0.3, ge=0, lt=1)
    """Share of a stage's examples that come from the replay buffer: round(ratio x N) of N."""
    buffer_capacity: int = Field(5000, ge=1)
    """Problems the replay buffer holds at most."""
    buffer_sampling: Literal["reservoir", "by_level"] = "reservoir"
    """``reservoir``: every earlier problem has the same chance. ``by_level``: every level the same share."""
    promotion: PromotionConfig | None = None
    """For stages with each_level. None: every stage runs once, to its end."""

    @model_validator(mode="after")
    def _order_is_of_these_levels(self) -> "CurriculumConfig":
        if isinstance(self.level_order, list):
            if not self.level_order:
                raise ValueError("level_order must name a level, got []")
            unknown = [level for level in self.level_order if level not in (self.levels or self.level_order)]
            if unknown:
                raise ValueError(f"level_order must hold levels of {self.levels}, got {unknown}")
        if self.levels is not None and len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels must differ, got {self.levels}")
        return self


class RangeConfig(StrictModel):
    """Numbers drawn from an interval."""

    low: float
    high: float
    log: bool = False
    """Uniform in the logarithm."""

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "RangeConfig":
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low must be below high{' and above 0' * self.log}, got {self.low:g} and {self.high:g}")
        return self


class HalvingConfig(StrictModel):
    """Successive halving: after every stage the weakest settings stop. arXiv:1502.07943."""

    budget_stages: int = Field(ge=1)
    """Stages trained at most, over all settings and seeds. A shared stage counts once, baselines do not count."""


class SearchConfig(StrictModel):
    """Many chains: (grid x draws, and the baselines) x seeds."""

    seeds: list[int] | None = Field(None, min_length=1)
    """None: the configuration's one."""
    grid: dict[str, Any] = {}
    """Settings by their place in this file, each with a list of values; all combinations are run:
    ``{curriculum: {replay_ratio: [0.0, 0.3]}}``."""
    space: dict[str, Any] = {}
    """The same, with a range (low, high, log) or a list in place of the values: one of them is drawn."""
    num_draws: int = Field(1, ge=1)
    """Draws from ``space``, for every combination of the grid."""
    baselines: list[dict[str, Any]] = [{"curriculum": {"level_order": "mixed"}}]
    """Settings that are run beside the grid and never stopped. The first is what the best is compared with."""
    halving: HalvingConfig | None = None
    max_retries: int = Field(2, ge=0)
    """How often a failed stage is tried again, from its last checkpoint, before its chains end."""
    max_concurrent_stages: int | None = Field(None, ge=1)
    """None: as many as fit into the cluster."""


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


class EvalConfig(StrictModel):
    """Held-out problems: before the first stage, after every stage and, with total_eval_times, while stages train."""

    problems_per_level: int = Field(50, ge=0)
    """0 switches evaluation off. Data without levels counts as one level."""
    problems_per_level_at_end: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    """After the last stage of a run that is no search. None: problems_per_level."""
    at_start: bool = True
    max_completion_length: int = Field(256, ge=1)
    """Tokens, decoded greedily."""
    total_eval_times: int = Field(0, ge=0)
    """Evaluations while a stage trains, evenly spread, the last one at its last step. 0: none."""
    metric_for_best_model: Literal["loss", "perplexity", "token_accuracy", "answer_accuracy"] | None = None
    """Of those evaluations: the best checkpoint is kept. None: the mean reward of training (SFT: its loss)."""
    greater_is_better: bool | None = None
    """None: of an accuracy."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """A stage ends after so many evaluations in a row without a new best. None: never."""
    load_best_model_at_end: bool = False
    """A stage ends with its best weights in place of its last."""

    @property
    def higher_wins(self) -> bool:
        """Whether more of metric_for_best_model is better."""
        if self.greater_is_better is None:
            return self.metric_for_best_model in ("token_accuracy", "answer_accuracy")
        return self.greater_is_better

    @model_validator(mode="after")
    def _best_needs_evaluations(self) -> "EvalConfig":
        if self.total_eval_times and not self.problems_per_level:
            raise ValueError("total_eval_times needs problems_per_level above 0, got 0: there is nothing to evaluate")
        if self.metric_for_best_model and not self.total_eval_times:
            raise ValueError("metric_for_best_model needs total_eval_times above 0, got 0")
        if not self.metric_for_best_model and (self.early_stopping_patience or self.load_best_model_at_end):
            raise ValueError("early_stopping_patience and load_best_model_at_end need metric_for_best_model, got none")
        return self


class CheckpointConfig(StrictModel):
    every_steps: int = Field(50, ge=1)
    every_minutes: float = Field(5.0, gt=0)
    keep_last: int = Field(2, ge=1)
    """The last k are kept, and the newest stage's best: see ``eval.metric_for_best_model``."""


class OutputConfig(StrictModel):
    root: str = "output/experiments"
    """Run directories are made here. A submitted job needs an absolute path."""
    samples_every_steps: int = Field(10, ge=1)
    """Completions of a step are written to samples/ this often."""
    save_final_model: bool = True


class TrackingConfig(StrictModel):
    """Where metrics go besides metrics.jsonl. Keys are taken from the environment alone. docs/tracking.md."""

    backends: list[Literal["tensorboard", "wandb", "swanlab", "mlflow"]] = ["tensorboard"]
    """``wandb``, ``swanlab`` and ``mlflow`` are extras: ``pip install "gradus[wandb]"``."""
    online: bool = False
    """False: files under metrics/ of the run directory, nothing leaves the machine."""
    project: str = Field("gradus", min_length=1)
    run_name: str | None = None
    """None: the run directory's name."""
    mlflow_uri: str | None = None
    """A tracking server, or ``sqlite:///FILE``. None: a file under metrics/, online or not."""


class Config(StrictModel):
    seed: int = Field(0, ge=0)
    """Prompt order, sampling and dropout derive from it."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    trainer: TrainerConfig = TrainerConfig()
    stages: list[StageConfig] = Field(min_length=1)
    curriculum: CurriculumConfig | None = None
    search: SearchConfig | None = None
    sft: SFTConfig = SFTConfig()
    grpo: GRPOConfig = GRPOConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    learner: LearnerConfig = LearnerConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    output: OutputConfig = OutputConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check_across_sections(self) -> "Config":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages must have different names, got {names}: files are named after them")
        if both := [stage.name for stage in self.stages if stage.each_level and stage.problems.levels is not None]:
            raise ValueError(f"stages with each_level must leave problems.levels to curriculum.levels, got {both}")
        if self.curriculum is None and (special := [s.name for s in self.stages if s.each_level or s.replay_ratio]):
            raise ValueError(f"curriculum must be set for each_level and replay_ratio of stages, got none: {special}")
        if self.curriculum and self.curriculum.promotion and not self.eval.problems_per_level:
            raise ValueError("eval.problems_per_level must be above 0 for curriculum.promotion, got 0")
        metric = self.eval.metric_for_best_model
        if metric in ("loss", "perplexity", "token_accuracy"):
            if self.data.task_name is None:
                raise ValueError(f"data.task_name must be set for eval.metric_for_best_model={metric}, got none")
            if sampling := [stage.name for stage in self.stages if stage.kind == "grpo"]:
                raise ValueError(
                    f"eval.metric_for_best_model must be answer_accuracy for grpo stages, got {metric}: {sampling}"
                )
        if self.eval.early_stopping_patience and self.curriculum and self.curriculum.promotion:
            raise ValueError("eval.early_stopping_patience must be null beside curriculum.promotion, which has its own")
        for index, stage in enumerate(self.stages):
            try:
                settings = self.stage_settings(stage)
            except ValidationError as error:
                raise ValueError(f"stages.{index}.settings: {_describe(error.errors()[0], Config)}") from None
            if isinstance(settings, GRPOConfig):
                self._check_rollouts(settings)
        if self.trainer.name == "SpectralRefactor" and self.model.lora is None:
            raise ValueError("trainer.name=SpectralRefactor needs model.lora, got none: adapters are what it refactors")
        if self.model.device_map and self.learner.num_workers > 1:
            raise ValueError("model.device_map must be null when learner.num_workers is above 1: workers replicate")
        check_shards(self.rollout)
        self._check_mlflow_uri()
        return self

    def _check_mlflow_uri(self) -> None:
        """Here, not in the section: messages about a section show what was given."""
        uri = self.tracking.mlflow_uri or "sqlite:///"
        if "@" in uri or "?" in uri:
            raise ValueError(
                "tracking.mlflow_uri must hold no user, password or query: it is written to files. "
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
            )
        if not uri.startswith("sqlite:///") and not self.tracking.online:
            raise ValueError("tracking.online must be true for a tracking.mlflow_uri that is not sqlite:///FILE")

    def _check_rollouts(self, settings: GRPOConfig) -> None:
        if settings.batch_size % self.learner.num_workers:
            raise ValueError(
                f"grpo.batch_size must be a multiple of learner.num_workers, got {settings.batch_size} and "
                f"{self.learner.num_workers}: every worker takes the same share"
            )
        share, chunk = settings.batch_size // self.learner.num_workers, self.rollout.prompts_per_chunk
        if (share % chunk and share > chunk) or (share < chunk and self.learner.num_workers > 1):
            raise ValueError(
                f"rollout.prompts_per_chunk must divide each learner's share of a batch, got {chunk} and {share}: "
                "chunks are never split or mixed"
            )
        if self.rollout.temperature == 0:
            raise ValueError("rollout.temperature must be above 0 for grpo, got 0: equal completions teach nothing")

    def batch_size(self, settings: SFTConfig | GRPOConfig) -> int:
        """Examples per optimizer step, or prompts per step, over all learner workers."""
        if isinstance(settings, GRPOConfig):
            return settings.batch_size
        per_worker = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        return per_worker * self.learner.num_workers

    def stage_settings(self, stage: StageConfig) -> SFTConfig | GRPOConfig:
        """The section of the stage's kind with the stage's own settings laid over it."""
        section: SFTConfig | GRPOConfig = self.sft if stage.kind == "sft" else self.grpo
        return type(section).model_validate({**section.model_dump(), **stage.settings})


Settings = TypeVar("Settings", bound=StrictModel)


@overload
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config: ...
@overload
def load_config(path: str | Path, overrides: Sequence[str], model: type[Settings]) -> Settings: ...
def load_config(path: str | Path, overrides: Sequence[str] = (), model: type[Any] = Config) -> Any:
    """Read a recipe, lay ``preset`` and ``overrides`` over it, and check the result.

    Args:
        path: a YAML file. It may hold ``presets`` (name -> settings) and ``preset`` (the chosen name).
        overrides: ``dotted.key=value``, values typed as in YAML. List items by index: ``stages.0.name=warmup``.
        model: what the recipe configures.

    Raises:
        ConfigError: naming the key, and the nearest valid one where it is unknown.
    """
    try:
        raw = OmegaConf.load(path)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"config file {path} cannot be read: {reason}. Recipes are in configs/.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} must be YAML: {' '.join(str(error).split())}") from None
    pairs = [_parse_override(item) for item in overrides]
    try:
        raw = _apply_preset(raw, pairs)
        for key, value in pairs:
            OmegaConf.update(raw, key, value, merge=True, force_add=True)
        settings = OmegaConf.to_container(raw, resolve=True)
    except (OmegaConfBaseException, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"config file {path}, {' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    return _validated(settings, model)


def validate_config(settings: Any) -> Config:
    """A Config from plain dicts and lists. Raises ConfigError with one line per problem."""
    return _validated(settings, Config)


def _validated(settings: Any, model: type[Settings]) -> Settings:
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(item, model) for item in error.errors())) from None


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    """The configuration with other values of some settings, checked like any other.

    Args:
        settings: by dotted key, ``{"curriculum.replay_ratio": 0.1}``.
    """
    raw = OmegaConf.create(config.model_dump())
    try:
        for key, value in settings.items():
            OmegaConf.update(raw, key, value, merge=True, force_add=True)
    except (OmegaConfBaseException, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{', '.join(settings)}: {str(error).splitlines()[0]}") from None
    return validate_config(OmegaConf.to_container(raw))


def _parse_override(item: str) -> tuple[str, Any]:
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"override must be key=value, got {item!r}.")
    try:
        return key, OmegaConf.create(f"value: {text}" if text else "value: ''").value
    except (YAMLError, OmegaConfBaseException):
        return key, text


def _apply_preset(raw: Any, pairs: list[tuple[str, Any]]) -> Any:
    """Merge the chosen preset under the overrides; ``preset`` and ``presets`` are not settings."""
    presets = raw.pop("presets", {}) or {}
    chosen = raw.pop("preset", None)
    for key, value in [pair for pair in pairs if pair[0] == "preset"]:
        chosen = value
        pairs.remove((key, value))
    if chosen is None:
        return raw
    if chosen not in presets:
        raise ConfigError(f"preset must be one of {sorted(map(str, presets)) or 'none in this file'}, got {chosen!r}.")
    return OmegaConf.merge(raw, presets[chosen])


def _describe(item: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(_valid_keys(model)), n=1, cutoff=0.5)
        return f"unknown setting {key}." + (f" Did you mean {near[0]}?" if near else "")
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return message
    if item["type"] == "missing":
        return f"{key} must be set: it has no default."
    return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}."


def _valid_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from _valid_keys(candidate, f"{prefix}{name}.")
