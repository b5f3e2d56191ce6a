"""Optimizer, supervised fine-tuning, GRPO and spectral refactoring."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.config.base import StrictModel


class OptimizerConfig(StrictModel):
    """AdamW and its learning rate, for both kinds of stage."""

    learning_rate: float = Field(1e-5, gt=0)
    """The learning rate after warm-up."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The rate after warm-up: constant, or falling so that it would reach 0 one step after the last."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the stage's steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay, of matrices: weights of linear layers and LoRA factors. Norms, biases and
    embeddings do not decay."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay rate of the first moments."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Decay rate of the second moments."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this global L2 norm."""
    max_skipped_updates: int = Field(5, ge=1)
    """An update whose loss or gradient is not finite is skipped. After this many in a row the run stops."""


class TrainerConfig(StrictModel):
    """Work done after an optimizer step. All settings but ``name`` are for ``SpectralRefactor``. docs/spectral.md."""

    name: Literal["Trainer", "SpectralRefactor"] = "Trainer"
    """``Trainer`` does nothing more. ``SpectralRefactor`` refactors LoRA adapters at intervals."""

    refactor_every: int = Field(100, ge=1)
    """Optimizer steps between two refactorings."""
    warmup_steps: int = Field(100, ge=0)
    """Earliest optimizer step of the first refactoring: B starts at 0 and has no spectrum yet."""
    cooldown_steps: int = Field(100, ge=0)
    """Refactorings stop this many optimizer steps before the end of training."""
    mode: Literal["exact", "balanced"] = "exact"
    """``exact`` leaves B A unchanged. ``balanced`` moves its singular values towards their mean, by a share lambda."""
    lambda_start: float = Field(0.0, ge=0, le=1)
    """Lambda of ``balanced`` at step 0. It grows linearly to 1 at the last step."""
    damping: float = Field(0.0, ge=0)
    """Added to a singular value before its square root becomes the scale of a row of A. B compensates, so B A does not
    change. It keeps Adam's moments small where a singular value is small."""
    floor: float = Field(1e-4, gt=0)
    """A row of A is never shorter than the square root of this, whatever its singular value: where B is 0, gradients
    reach B through that row. B A does not change."""
    first_moments: Literal["map", "clear"] = "map"
    """``map`` leaves m_B A + B m_A unchanged. ``clear`` sets Adam's first moments to 0."""
    layers: list[str] = Field(default=["*"], min_length=1)
    """Layers to refactor: names or endings of names, with * and ?, such as ``q_proj`` and ``layers.0.mlp.*``."""
    min_layer_params: int = Field(0, ge=0)
    """Refactor only layers with at least this many weights, d_out x d_in."""
    max_layer_params: int | None = Field(None, ge=1)
    """Refactor only layers with at most this many weights. None: no limit."""


class SFTConfig(OptimizerConfig):
    """Supervised fine-tuning on worked solutions."""

    KIND: ClassVar[str] = "sft"

    per_device_train_batch_size: int = Field(16, ge=1)
    """Examples per learner worker and accumulation step."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Accumulation steps per optimizer step. Only the product of batch size, accumulation steps and workers matters:
    every token weighs the same, and ``learner.tokens_per_micro_batch`` sets how much the model computes at a time."""
    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the stage's problems, each in a new order."""
    max_steps: int | None = Field(None, ge=1)
    """Maximum optimizer steps. None: as many as num_train_epochs needs."""
    max_length: int = Field(1024, ge=8)
    """Maximum tokens of prompt and solution together."""
    too_long: Literal["drop", "truncate"] = "drop"
    """Examples over max_length are left out, or cut off. They are counted either way."""
    loss_on: Literal["completion", "all"] = "completion"
    """``completion``: loss on solutions only. ``all``: on prompts too."""
    packing: bool = True
    """Put several examples into one row instead of padding. None sees another, and positions restart. False: rows of
    similar length, padded. The loss is the same."""
    pad_to_multiple_of: int = Field(8, ge=1)
    """Rows are padded to a multiple of this many tokens; packed rows in bfloat16 on a CPU to a multiple of 64."""


class MemorySFTConfig(SFTConfig):
    """Supervised fine-tuning of an explicit memory's modules through the frozen backbone. docs/memory.md."""

    KIND: ClassVar[str] = "memory_sft"

    learning_rate: float = Field(5e-5, gt=0)
    """The learning rate after warm-up."""
    packing: Literal[False] = False
    """Examples are padded: noise and positions are those of an example, not of a row."""
    train: list[Literal["memory_gate", "gated_memory_fusion", "memory_norm"]] = [
        "memory_gate",
        "gated_memory_fusion",
        "memory_norm",
    ]
    """The parts that train, the fusion or the norm among them. A pooled router trains in router stages alone."""

    @field_validator("train")
    @classmethod
    def _reaches_the_loss(cls, train: list[str]) -> list[str]:
        if not {"gated_memory_fusion", "memory_norm"} & set(train):
            raise ValueError("must hold gated_memory_fusion or memory_norm: the loss has no gradient of other parts")
        return train


class RouterConfig(SFTConfig):
    """Training of an explicit memory's router: questions find their entries. docs/memory.md."""

    KIND: ClassVar[str] = "router"

    learning_rate: float = Field(1e-3, gt=0)
    """The learning rate after warm-up."""
    packing: Literal[False] = False
    """Questions are padded."""
    train: list[Literal["memory_gate", "memory_norm", "product_keys"]] = Field(
        default=["memory_gate", "memory_norm"], min_length=1
    )
    """The parts that train. ``product_keys`` only with memory.query=token."""
    token_dropout: float = Field(0.15, ge=0, lt=1)
    """Share of a prompt's tokens that are left out of a pooled query, others in each step."""


class GRPOConfig(OptimizerConfig):
    """Group relative policy optimization. arXiv:2402.03300."""

    KIND: ClassVar[str] = "grpo"

    learning_rate: float = Field(1e-6, gt=0)
    """The learning rate after warm-up."""
    num_iterations: int = Field(1, ge=1)
    """Outer iterations. Each starts by taking the policy as the new reference policy."""
    num_steps: int = Field(100, ge=1)
    """Steps per iteration. In a step, batch_size prompts are sampled, graded and learned from."""
    batch_size: int = Field(8, ge=1)
    """Prompts per step, over all learner workers."""
    num_generations: int = Field(8, ge=2)
    """Completions per prompt: the size of a group. A single one would have nothing to be compared with."""
    mu: int = Field(1, ge=1)
    """Optimizer updates per batch. Above 1, the ratio leaves 1 and clipping takes effect."""
    epsilon: float = Field(0.2, gt=0, lt=1)
    """The ratio is clipped to [1 - epsilon, 1 + epsilon_high]. PPO, arXiv:1707.06347."""
    epsilon_high: float | None = Field(None, gt=0)
    """None: epsilon. A larger value is DAPO's clip-higher. arXiv:2503.14476."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL term against the reference policy. 0: no reference pass."""
    normalize_std: bool = True
    """Divide advantages by the group's standard deviation. False: Dr. GRPO, arXiv:2503.20783."""
    loss_aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """``sequence``: mean over a completion's tokens, then over completions (GRPO). ``token``: mean over all tokens of
    the batch (DAPO). ``constant``: sum over tokens, divided by num_completions x max_completion_length (Dr. GRPO)."""
    drop_zero_variance_groups: bool = False
    """Leave groups with equal rewards out of the loss and of its denominator."""
    mask_ungraded: bool = True
    """Leave completions out of advantages and loss if grading timed out or the gold answer is bad. False: score them as
    wrong."""
    mask_truncated: bool = False
    """Leave completions that were cut off at max_completion_length out of the loss (DAPO)."""
