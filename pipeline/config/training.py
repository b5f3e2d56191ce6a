"""Optimizer, supervised fine-tuning, GRPO and spectral refactoring."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import StrictModel
from pipeline.config.samplers import SamplerConfig


class OptimizerConfig(StrictModel):
    """AdamW and its learning rate, for both kinds of stage."""

    learning_rate: float = Field(1e-5, gt=0)
    """The learning rate after warm-up."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The rate after warm-up: constant, or falling so that it would reach 0 one step after the last."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the stage's steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay. It applies to matrices: weights of linear layers and LoRA factors. Norms, biases
    and embeddings do not decay."""
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
    """Earliest optimizer step of the first refactoring, because B starts at 0 and has no spectrum yet."""
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
    """Put several examples into one row instead of padding. Examples do not see each other, and positions restart.
    False: pad rows of similar length. The loss is the same."""
    pad_to_multiple_of: int = Field(8, ge=1)
    """Rows are padded to a multiple of this many tokens; packed rows in bfloat16 on a CPU to a multiple of 64."""


class MemorySFTConfig(SFTConfig):
    """Supervised fine-tuning of an explicit memory's modules through the frozen backbone. docs/memory.md."""

    KIND: ClassVar[str] = "memory_sft"

    learning_rate: float = Field(5e-5, gt=0)
    """The learning rate after warm-up."""
    packing: Literal[False] = False
    """Examples are padded, because noise and positions belong to an example, not to a row."""
    train: list[Literal["memory_gate", "gated_memory_fusion", "memory_norm"]] = [
        "memory_gate",
        "gated_memory_fusion",
        "memory_norm",
    ]
    """The parts that train. They must include the fusion or the norm. A pooled router trains only in router stages."""

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
    """The parts that train. ``product_keys`` can train only with memory.query=token."""
    token_dropout: float = Field(0.15, ge=0, lt=1)
    """Share of a prompt's tokens that are left out of a pooled query, different ones in each step."""


_ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"normalize_std": False, "loss_aggregation": "constant"},
    "dapo": {
        "epsilon_high": 0.28,
        "loss_aggregation": "token",
        "drop_zero_variance_groups": True,
        "overlong_buffer_frac": 0.2,
    },
    "gspo": {"policy_loss": "sequence_clip", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "cispo": {"policy_loss": "cispo", "epsilon": 1.0, "epsilon_high": 4.0, "loss_aggregation": "token"},
    "rloo": {"advantage_baseline": "leave_one_out", "normalize_std": False, "policy_loss": "product_clip"},
    "reinforce_plus_plus": {
        "advantage_baseline": "batch",
        "normalize_over": "batch",
        "loss_aggregation": "token",
    },
    "gmpo": {
        "policy_loss": "geometric_mean",
        "epsilon": -math.expm1(-0.4),  # the paper's range is exp(-0.4) to exp(0.4)
        "epsilon_high": math.expm1(0.4),
    },
}
_SAMPLER_CORRECTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "token_truncate": {},
    "token_mask": {"sampler_ratio_max": 5.0},
    "sequence_truncate": {},
    "sequence_mask": {"sampler_ratio_min": 0.9, "sampler_ratio_max": 1.1},
}
_PRESETS = {"algorithm": _ALGORITHMS, "sampler_correction": _SAMPLER_CORRECTIONS}


class GRPOConfig(OptimizerConfig):
    """Group relative policy optimization, arXiv:2402.03300, and its relatives. docs/losses.md.

    ``algorithm`` sets the defaults of settings below it, and ``sampler_correction`` those of its bounds.
    """

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
    sampler: SamplerConfig | None = None
    """Chooses each step's problems by what they teach. None: every pass over them is a new permutation.
    docs/samplers.md."""
    max_sampled_tokens: int | None = Field(None, ge=1)
    """The stage ends with the step in which it reaches this many sampled tokens, including those of dropped groups.
    None: only its number of steps bounds it."""
    algorithm: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus", "gmpo"] = "grpo"
    """Sets what the algorithm's paper sets. All other settings that any algorithm sets get their defaults. Settings
    beside it win. Laid over a configuration that is already resolved (by a stage's own settings, a search, overrides),
    it sets all of them anew."""
    policy_loss: Literal["clip", "sequence_clip", "product_clip", "cispo", "geometric_mean"] = "clip"
    """``clip``: a ratio per token, clipped (PPO). ``sequence_clip``: the ratio's geometric mean over a completion,
    clipped (GSPO). ``product_clip``: its product over a completion, clipped (RLOO). ``cispo``: REINFORCE with a clipped
    ratio as constant weight. ``geometric_mean``: geometric mean of ratios that are clipped one by one (GMPO)."""
    epsilon: float = Field(0.2, gt=0, le=1)
    """The ratio is clipped to [1 - epsilon, 1 + epsilon_high]. PPO, arXiv:1707.06347."""
    epsilon_high: float | None = Field(None, gt=0)
    """None: epsilon. A larger value is DAPO's clip-higher. arXiv:2503.14476."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL term against the reference policy. 0: no reference pass."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of the policy's entropy, which is subtracted from the loss. 0: no such term."""
    advantage_baseline: Literal["group", "leave_one_out", "batch"] = "group"
    """What is subtracted from a reward: the mean of its group, of the group's other completions (RLOO), or of the whole
    batch (REINFORCE++)."""
    normalize_std: bool = True
    """Divide advantages by their standard deviation. False: Dr. GRPO, arXiv:2503.20783."""
    normalize_over: Literal["group", "batch"] = "group"
    """Advantages whose standard deviation is taken: the group's, or those of the whole batch."""
    loss_aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """``sequence``: mean over a completion's tokens, then over completions (GRPO). ``token``: mean over all tokens of
    the batch (DAPO). ``constant``: sum over tokens, divided by num_completions x max_completion_length (Dr. GRPO)."""
    drop_zero_variance_groups: bool = False
    """Leave groups with equal rewards out of the loss and its denominator."""
    mask_ungraded: bool = True
    """Leave completions out of advantages and loss if grading timed out or the gold answer is bad. False: score them as
    wrong."""
    mask_truncated: bool = False
    """Leave completions that were cut off at max_completion_length out of the loss (DAPO's overlong filtering)."""
    overlong_buffer_frac: float = Field(0.0, ge=0, le=1)
    """Last part of max_completion_length, as a share of it, in which a completion is punished softly (DAPO). 0: no
    punishment."""
    overlong_penalty: float = Field(1.0, gt=0)
    """Penalty on the reward of a completion of max_completion_length. The penalty rises from 0 at the buffer's
    start."""
    old_policy: Literal["learner", "sampler"] | None = None
    """Log-probabilities that ratios are taken against: the learner's before its first update of the batch, or those
    that the engine sampled with. None: the learner's, unless completions may be stale and no sampler_correction
    re-weights them."""
    sampler_correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "none"
    """Weights of the policy loss that correct the difference between the learner, before its first update of the batch,
    and the sampler. ``token_truncate``: their ratio per token, truncated (TIS). ``token_mask``: the same ratio, but 0
    outside a band (IcePop). ``sequence_truncate``: the ratio of whole completions, truncated. ``sequence_mask``: 0 for
    completions whose geometric mean ratio leaves a band, 1 for others."""
    sampler_ratio_min: float = Field(0.5, ge=0, le=1)
    """Lower end of the band."""
    sampler_ratio_max: float = Field(2.0, ge=1)
    """Upper end of the band, or the value that ratios are truncated to."""
    warn_sampler_diff_above: float | None = Field(0.2, gt=0)
    """The first ``sampler_logprob_diff`` above this is reported on the console. bfloat16 alone gives about 0.04. None:
    never."""

    @model_validator(mode="before")
    @classmethod
    def _of_presets(cls, values: Any) -> Any:
        return {**preset_settings(values), **values} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _correct_once(self) -> "GRPOConfig":
        if self.old_policy == "sampler" and self._reweights:
            raise ValueError(
                f"old_policy must be learner with sampler_correction={self.sampler_correction}, got sampler: ratios "
                "against the sampler hold the correction already. Leave it null"
            )
        return self

    @model_validator(mode="after")
    def _divides_by_what_it_centered(self) -> "GRPOConfig":
        if self.advantage_baseline == "batch" and self.normalize_std and self.normalize_over == "group":
            raise ValueError(
                "normalize_over must be batch with advantage_baseline=batch, got group: a group of equal rewards has "
                "advantages, but a standard deviation of 0. Or set normalize_std to false"
            )
        return self

    @property
    def _reweights(self) -> bool:
        return self.sampler_correction not in ("none", "sequence_mask")

    @property
    def clip_range(self) -> tuple[float, float]:
        """Lowest and highest ratio that is not clipped."""
        return 1 - self.epsilon, 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)

    def old_policy_for(self, max_staleness: int) -> Literal["learner", "sampler"]:
        """The old policy of completions that may be so many versions old."""
        return self.old_policy or ("sampler" if max_staleness and not self._reweights else "learner")


def preset_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of GRPO that presets among ``values`` set: all that any choice of the same preset sets."""
    found: dict[str, Any] = {}
    for name, choices in _PRESETS.items():
        chosen = choices.get(str(values.get(name)))
        if chosen is not None:
            keys = {key for choice in choices.values() for key in choice}
            found |= {key: GRPOConfig.model_fields[key].default for key in sorted(keys)} | chosen
    return found
