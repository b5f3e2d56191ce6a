"""Stages, curricula, and searches over them."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import StrictModel
from pipeline.config.data import ProblemFilter
from pipeline.files import safe_name
from pipeline.types import WritingKind

StageKind = Literal["sft", "grpo", "memory_sft", "router"]


class CarryConfig(StrictModel):
    """State that a stage takes over from the stage before it."""

    weights: bool = True
    """The policy's weights. False: start again from ``model``."""
    optimizer: bool = False
    """AdamW's moments. Needs the weights that they belong to."""
    replay_buffer: bool = True
    """Earlier problems. False empties the buffer: only problems of this stage and later ones are replayed from then
    on."""

    @model_validator(mode="after")
    def _moments_belong_to_weights(self) -> "CarryConfig":
        if self.optimizer and not self.weights:
            raise ValueError("optimizer must be false where weights is false: its moments belong to those weights")
        return self


class WriteConfig(StrictModel):
    """Problems that are written at the end of a stage."""

    num_problems: int = Field(640, ge=1)
    """Problems to write, one for each task. Levels take turns."""
    by: Literal["policy", "teacher"] = "policy"
    """The policy as the stage left it, or ``questions.teacher``."""
    kinds: list[WritingKind] = ["new"]
    """Kinds of tasks to give. Kinds take turns."""


class StageConfig(StrictModel):
    """A stage. Stages run in order, each from the weights of the one before."""

    name: str
    """Unique among the stages: metrics and files are labelled with it. Letters and digits of any script, ``_.-``."""
    kind: StageKind
    """``sft``: supervised fine-tuning. ``grpo``: GRPO. ``memory_sft`` and ``router`` train an explicit memory's fusion
    and its router."""
    each_level: bool = False
    """Expands to one stage per level, in ``curriculum.level_order``: ``level`` becomes ``level_1``, ``level_2``."""
    problems: ProblemFilter = ProblemFilter()
    """The training problems that the stage uses."""
    carry: CarryConfig = CarryConfig()
    """State that the stage takes over from the one before it."""
    replay_ratio: float | None = Field(None, ge=0, lt=1)
    """Replay ratio of this stage. None: ``curriculum.replay_ratio``."""
    balance_levels: bool = False
    """Every batch has equally many problems of each level, as far as its size divides evenly."""
    write: WriteConfig | None = None
    """Problems that are written at the end of the stage, for later stages."""
    written_frac: float = Field(0.0, ge=0, le=1)
    """Share of the stage's training problems that earlier stages wrote. The others come from the data."""
    settings: dict[str, Any] = {}
    """Settings of this stage that differ from the section of its kind: ``sft:``, ``grpo:``, ``memory_sft:``,
    ``router:``."""

    @field_validator("name")
    @classmethod
    def _names_files(cls, name: str) -> str:
        if not name[:1].isalnum() or safe_name(name) != name:
            raise ValueError("must start with a letter or digit, go on with letters, digits, _, . and -, and be short")
        return name


class PromotionConfig(StrictModel):
    """Ends a stage of one level early or repeats it, by held-out accuracy on that level."""

    threshold: float | None = Field(None, gt=0, le=1)
    """The stage ends at the first evaluation that reaches this accuracy, and is repeated if it ends below it. None:
    neither."""
    patience: int | None = Field(None, ge=1)
    """The stage ends after this many evaluations in a row without a new best. None: never."""
    max_repeats: int = Field(0, ge=0)
    """Maximum repeats of a stage that missed its threshold, on the same problems."""
    every_steps: int = Field(10, ge=1)
    """Steps between two evaluations of the level."""


class CurriculumConfig(StrictModel):
    """The order of levels, and the replay of earlier problems. Without this section nothing is replayed."""

    level_order: Literal["forward", "reverse", "mixed"] | list[str] = "forward"
    """Order of stages with each_level. ``forward``: easiest first. ``reverse``: hardest first. A list: these levels,
    maybe with repeats. ``mixed``, the baseline: all levels in one stage, with as many steps as all stages together."""
    levels: list[str] | None = Field(None, min_length=1)
    """The levels, easiest first. None: all levels of the training data, in natural order."""
    max_train_samples_per_level: int | None = Field(None, ge=1)
    """Default of ``problems.max_per_level`` for all stages. None: no limit."""
    replay_ratio: float = Field(0.3, ge=0, lt=1)
    """Share of a stage's examples that come from the replay buffer: round(ratio x N) of N."""
    buffer_capacity: int = Field(5000, ge=1)
    """Maximum number of problems in the replay buffer."""
    buffer_sampling: Literal["reservoir", "by_level"] = "reservoir"
    """``reservoir``: every earlier problem is equally likely to be kept. ``by_level``: levels have equal shares."""
    promotion: PromotionConfig | None = None
    """Early end and repetition of stages with each_level. None: every stage runs once, to its end."""

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
    """An interval from which a number is drawn."""

    low: float
    high: float
    log: bool = False
    """Draw uniformly in the logarithm."""

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "RangeConfig":
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low must be below high{' and above 0' * self.log}, got {self.low:g} and {self.high:g}")
        return self


class HalvingConfig(StrictModel):
    """Successive halving: after every stage the weakest settings are stopped. arXiv:1502.07943."""

    budget_stages: int = Field(ge=1)
    """Maximum stages to train, over all settings and seeds. A shared stage counts once; baselines do not count."""


class SearchConfig(StrictModel):
    """A search over many chains: (grid x draws, and the baselines) x seeds."""

    seeds: list[int] | None = Field(None, min_length=1)
    """Every setting is run with each of these seeds. None: with the configuration's ``seed`` only."""
    grid: dict[str, Any] = {}
    """Settings, nested as in this file, each with a list of values. All combinations are run:
    ``{curriculum: {replay_ratio: [0.0, 0.3]}}``."""
    space: dict[str, Any] = {}
    """Settings, nested as in ``grid``, each with what its value is drawn from: a list, a range (low, high, log), or a
    sampler of Ray Tune with its arguments, as in ``{quniform: [0.0, 0.5, 0.1]}``."""
    num_draws: int = Field(1, ge=1)
    """Draws from ``space``. Each is run with every combination of the grid."""
    drawn_by: Literal["random", "optuna"] = "random"
    """``random``: independent draws. ``optuna``: Optuna's tree-structured Parzen estimator draws, guided by the final
    scores of earlier draws (arXiv:1907.10902)."""
    draws_per_round: int = Field(4, ge=1)
    """Draws that Optuna makes at once. They are run before it makes the next ones."""
    draws: list[dict[str, Any]] = []
    """The draws so far, by dotted key. The search records them here."""
    baselines: list[dict[str, Any]] = [{"curriculum": {"level_order": "mixed"}}]
    """Settings that are run beside the grid and never stopped. The best setting is compared with the first of them."""
    halving: HalvingConfig | None = None
    """None: every chain runs to its end."""
    max_retries: int = Field(2, ge=0)
    """Maximum retries of a failed stage, from its last checkpoint. After these, its chains end."""
    max_concurrent_stages: int | None = Field(None, ge=1)
    """Maximum number of stages that run at the same time. None: as many as fit into the cluster."""

    @model_validator(mode="after")
    def _optuna_sees_final_scores(self) -> "SearchConfig":
        if self.drawn_by == "optuna" and (self.halving or not self.space):
            raise ValueError("drawn_by optuna needs a space to draw from, and no halving: it compares final scores")
        return self

    @model_validator(mode="after")
    def _draws_are_of_a_space(self) -> "SearchConfig":
        if self.draws and not self.space:
            raise ValueError("draws must be empty without a space: the search records them itself")
        return self
