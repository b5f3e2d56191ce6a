"""Samplers: which problems a GRPO step asks. docs/samplers.md."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import StrictModel

SamplerName = Literal["uniform", "dynamic", "pools", "thompson", "target_difficulty", "bandit", "schedule"]
Category = Literal["level", "source", "type"]


class DynamicConfig(StrictModel):
    """Groups whose rewards are all equal are dropped, and other groups are asked for instead. DAPO,
    arXiv:2503.14476."""

    max_rounds: int = Field(8, ge=1)
    """Maximum times that a step asks for groups. After the last time it learns from what it has."""
    oversampling: float = Field(1.0, ge=1)
    """Factor on the number of groups that a round asks for. The first round asks for a batch, later rounds for as many
    groups as are likely to fill it. Above 1 there are fewer rounds, but more groups are left over."""
    max_empty_steps: int = Field(3, ge=1)
    """After this many steps in a row without any group to learn from, the stage ends."""


class PoolsConfig(StrictModel):
    """Easy, middle and hard problems by their latest solve rate, the share of correct completions, whatever the rewards
    are. Problems that were never asked are in the middle."""

    easy_above: float = Field(0.75, ge=0, le=1)
    """Solve rate from which on a problem is easy."""
    hard_below: float = Field(0.25, ge=0, le=1)
    """Solve rate up to which a problem is hard."""
    easy_weight: float = Field(0.2, ge=0)
    """Share of a batch from the easy pool. The three weights need not sum to 1."""
    middle_weight: float = Field(0.6, ge=0)
    """Share of a batch from the middle pool."""
    hard_weight: float = Field(0.2, ge=0)
    """Share of a batch from the hard pool."""
    retire_above: float = Field(1.0, gt=0, le=1)
    """Share of correct completions from which on a problem is retired."""
    ask_again_after: int = Field(50, ge=1)
    """Steps after which a retired problem may be asked again."""

    @model_validator(mode="after")
    def _has_a_middle(self) -> "PoolsConfig":
        if self.hard_below >= self.easy_above:
            raise ValueError(f"hard_below must be below easy_above, got {self.hard_below:g} and {self.easy_above:g}")
        if self.easy_weight + self.middle_weight + self.hard_weight == 0:
            raise ValueError("easy_weight, middle_weight or hard_weight must be above 0: a batch needs problems")
        return self


class ThompsonConfig(StrictModel):
    """Solve rates are drawn from each problem's Beta posterior; those nearest to a target win. BOTS,
    arXiv:2510.26374."""

    target_rate: float = Field(0.5, gt=0, lt=1)
    """The solve rate that is aimed at. At one half a group has the largest variance."""
    forgetting: float = Field(0.02, ge=0, le=1)
    """Share of what is known that each step forgets, because the policy changes: by default half within 34 steps."""
    prior_correct: float = Field(1.0, gt=0)
    """Correct completions that the prior stands for."""
    prior_wrong: float = Field(1.0, gt=0)
    """Wrong completions that the prior stands for."""


class TargetDifficultyConfig(StrictModel):
    """Problems nearest to a target difficulty, which rises while many completions are correct. AdaRFT,
    arXiv:2504.05520. Its reward is 1 for a correct completion, so its mean reward is the solve rate.

    Difficulties are in [0, 1]; the paper's are in [0, 100].
    """

    difficulty: Literal["level", "measured"] = "level"
    """``level``: the place of the problem's level among all levels. ``measured``: 1 - latest solve rate; for problems
    that were never asked, still the level."""
    start: float = Field(0.0, ge=0, le=1)
    """The first target."""
    target_rate: float = Field(0.5, ge=0, le=1)
    """Solve rate at which the target stays where it is."""
    sensitivity: float = Field(2.0, gt=0)
    """Within tanh, factor of the difference between the solve rate and ``target_rate``."""
    step_size: float = Field(0.2, gt=0, le=1)
    """Largest move of the target in a step. The paper's is 0.5, for batches of 1024 problems."""


class BanditConfig(StrictModel):
    """Categories chosen by how much they teach: the moving mean of the mean absolute advantage. SEC,
    arXiv:2505.14970."""

    categories: Category = "level"
    """Attribute that problems are grouped by."""
    learning_rate: float = Field(0.5, gt=0, le=1)
    """Share of a category's value that a step replaces."""
    temperature: float = Field(0.4, gt=0)
    """Temperature of the softmax over values. A lower one prefers the best category more."""


class ScheduleConfig(StrictModel):
    """Levels from easy to hard over the stage's steps or, if that ends sooner, its budget of sampled tokens. E2H,
    arXiv:2506.06632."""

    shape: Literal["gaussian", "cosine"] = "gaussian"
    """``gaussian``: a bell over the levels that moves upwards. ``cosine``: weights tilt from the easiest level to the
    hardest."""
    sigma: float = Field(0.75, gt=0)
    """Width of the bell, in levels."""
    exponent: float = Field(0.5, gt=0)
    """The bell is at (share of the stage done) ** exponent. Below 1 easy levels fade out early."""


class SamplerConfig(StrictModel):
    """Which problems a step asks. A sampler reads its own section and ignores those of other samplers."""

    name: SamplerName
    """``uniform``: seeded permutations, so that each problem comes once before any comes twice."""
    source_weights: dict[str, float] = {}
    """Share of each source of problems in every batch; all must be named. Each source has a sampler of its own. The
    source of a problem is its ``data.fields.source``, or with ``data.write`` the kind of its task. Weights need not sum
    to 1. Empty: sources are not told apart."""
    forgetting_frac: float = Field(0.0, ge=0, lt=1)
    """Largest share of a batch, and of its replayed places, for problems that were forgotten: their solve rate is below
    their best by more than two standard errors."""
    dynamic: DynamicConfig = DynamicConfig()
    pools: PoolsConfig = PoolsConfig()
    thompson: ThompsonConfig = ThompsonConfig()
    target_difficulty: TargetDifficultyConfig = TargetDifficultyConfig()
    bandit: BanditConfig = BanditConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @field_validator("source_weights")
    @classmethod
    def _weighs_something(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and (min(weights.values()) < 0 or sum(weights.values()) == 0):
            raise ValueError("must be 0 or above, and one of them above 0")
        return weights

    def with_effect(self) -> dict[str, Any]:
        """The settings that this sampler reads."""
        return self.model_dump(include={"name", "source_weights", "forgetting_frac", self.name})
