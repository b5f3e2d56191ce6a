"""Optimizer, supervised fine-tuning, GRPO and spectral refactoring."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import StrictModel


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
