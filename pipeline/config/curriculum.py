"""Stages, curricula, and searches over them."""

from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import StrictModel
from pipeline.config.data import ProblemFilter


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
